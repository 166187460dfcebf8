"""Every metric that an alert or a panel asks for stands in docs/metrics.md."""

import re
from pathlib import Path

known = set(re.findall(r"^\| `(\w+)`", Path("docs/metrics.md").read_text(), re.M))
text = Path("helm/weft/files/alerts.yaml").read_text() + Path("helm/weft/files/dashboard.json").read_text()
asked = set(re.findall(r"\b((?:weft|process)_\w+)", text))
unknown = {name for name in asked if name not in known and re.sub(r"_(bucket|sum|count)$", "", name) not in known}
assert len(asked) > 20, asked
assert not unknown, f"not in docs/metrics.md: {sorted(unknown)}"
