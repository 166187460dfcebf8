"""Splits rendered manifests into files for kubernetes-validate, without kinds that are not Kubernetes' own, and takes the
node's configuration out of its config map."""

import re
import sys
from pathlib import Path

import yaml

manifests, target, foreign = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
target.mkdir()
for number, document in enumerate(yaml.safe_load_all(manifests.read_text())):
    if not document:
        continue
    if "weft.toml" in document.get("data", {}):
        (target / "weft.toml").write_text(document["data"]["weft.toml"])
    if re.fullmatch(foreign, document["kind"]):
        continue
    (target / f"{number:02}-{document['kind']}.yaml").write_text(yaml.safe_dump(document))
