#!/usr/bin/env bash
# THE test command: installs what is missing and runs every check. See ./test.sh --help.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

FUZZ_SECONDS=${FUZZ_SECONDS:-60}
CARGO_FUZZ_VERSION=0.13.2
TOOLS=$PWD/target/tools
RELEASE_BIN=$(realpath -m "${CARGO_TARGET_DIR:-target}")/release/weft
README_COMMANDS=('cargo run --release' './test.sh')
SKIPPED=75 # exit code of a step that could not run and may be left out

STEPS=(setup fmt clippy test doc build browser interop helm ops fuzz readme)
declare -A ABOUT=(
  [setup]='install what is missing: browser, servers, npm packages, clients in other languages, helm, cargo-fuzz'
  [fmt]='cargo fmt --check'
  [clippy]='cargo clippy, warnings are errors'
  [test]='cargo test: unit, integration and doc tests'
  [doc]='cargo doc, warnings are errors'
  [build]='cargo build --release'
  [browser]='the JavaScript client: types, size, and what is built is true to its source (needs: setup)'
  [interop]="other people's clients against the release build (needs: setup build)"
  [helm]='the chart, the alerts and the dashboard (needs: setup build)'
  [ops]='compose, container, balancers, Prometheus: what deploy/ promises, with real servers (needs: setup build)'
  [fuzz]="every fuzz target for $FUZZ_SECONDS s (needs: setup)"
  [readme]='the commands that README.md promises exist'
)

have() { command -v "$1" >/dev/null; }

fail() {
  printf 'test.sh: %s\n' "$*" >&2
  exit 1
}

as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif have sudo; then
    sudo "$@"
  else
    fail "neither root nor sudo: as root, run: $*"
  fi
}

# Installs Debian packages. Those of servers would start them: the tests start their own, on ports of their own.
install_packages() {
  have apt-get || fail "no apt-get here: install $* by other means"
  local policy=/usr/sbin/policy-rc.d code=0
  as_root apt-get update
  if [ -e "$policy" ]; then policy=''; else printf '#!/bin/sh\nexit 101\n' | as_root install -m 755 /dev/stdin "$policy"; fi
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "$@" || code=$?
  [ -z "$policy" ] || as_root rm "$policy"
  return "$code"
}

step_setup() {
  local tool packages=()
  for tool in cargo node npm go python3; do
    have "$tool" || fail "$tool is not in PATH: install Rust, Node, Go and Python first"
  done

  have chromium || [ -n "${CHROMIUM:-}" ] || packages+=(chromium fonts-liberation)
  have c++ || packages+=(g++) # libFuzzer is C++
  have make || packages+=(make)
  have redis-server || packages+=(redis-server)
  # Debian keeps these where only root's PATH looks.
  have haproxy || [ -x /usr/sbin/haproxy ] || packages+=(haproxy)
  have nginx || [ -x /usr/sbin/nginx ] || packages+=(nginx-light)
  { have prometheus && have promtool; } || packages+=(prometheus)
  have systemd-analyze || packages+=(systemd)
  python3 -c 'import ensurepip, venv' 2>/dev/null || packages+=(python3-venv)
  have openssl || packages+=(openssl)
  have curl || packages+=(curl ca-certificates)
  [ ${#packages[@]} -eq 0 ] || install_packages "${packages[@]}"

  # npm writes its own copy of the lock file as the last act of an installation.
  local folder
  for folder in browser tests/interop; do
    [ "$folder/node_modules/.package-lock.json" -nt "$folder/package-lock.json" ] || (cd "$folder" && npm ci)
  done

  tests/interop/foreign/setup
  deploy/setup

  if [ "$("$TOOLS/bin/cargo-fuzz" --version 2>/dev/null)" != "cargo-fuzz $CARGO_FUZZ_VERSION" ]; then
    cargo install --locked --force --root "$TOOLS" --version "$CARGO_FUZZ_VERSION" cargo-fuzz
  fi
}

# A toolchain without these two components is the one thing that may be left out.
has_component() {
  cargo "$1" --version >/dev/null 2>&1 && return
  printf '\n!!! NOT CHECKED: cargo %s is not installed (rustup component add %s)\n\n' "$1" "$2" >&2
  return "$SKIPPED"
}

step_fmt() {
  has_component fmt rustfmt
  cargo fmt --check
  cargo fmt --check --manifest-path fuzz/Cargo.toml
}

step_clippy() {
  has_component clippy clippy
  cargo clippy --all-targets -- -D warnings
  # Without Redis, and without a server at all.
  cargo clippy --no-default-features --features server -- -D warnings
  cargo clippy --no-default-features --features client -- -D warnings
  cargo clippy --no-default-features --features client,tls -- -D warnings
  cargo clippy --no-default-features -- -D warnings
  cargo clippy --features otlp -- -D warnings
}

step_test() { cargo test; }

step_doc() { RUSTDOCFLAGS='-D warnings' cargo doc --no-deps; }

step_build() { cargo build --release; }

step_browser() { (cd browser && npm run check); }

step_interop() {
  [ -x "$RELEASE_BIN" ] || fail "no release build: ./test.sh build interop"
  (cd tests/interop && WEFT_BIN=$RELEASE_BIN npm test)
}

step_helm() {
  [ -x "$RELEASE_BIN" ] || fail "no release build: ./test.sh build helm"
  WEFT_BIN=$RELEASE_BIN helm/test
}

step_ops() {
  [ -x "$RELEASE_BIN" ] || fail "no release build: ./test.sh build ops"
  # Not part of a default build, and so not of the tests before.
  cargo build --features otlp
  WEFT_BIN=$RELEASE_BIN deploy/test-ops
}

step_fuzz() {
  local source target
  export PATH=$TOOLS/bin:$PATH
  # Fuzzing uses unstable compiler flags. This lets the stable compiler take them, and spares a nightly one.
  export RUSTC_BOOTSTRAP=1
  for source in fuzz/fuzz_targets/*.rs; do
    target=$(basename "$source" .rs)
    mkdir -p "fuzz/corpus/$target"
    # New inputs go into the first folder; the seeds are only read.
    cargo fuzz run --target-dir fuzz/target "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" -- \
      -max_total_time="$FUZZ_SECONDS" -timeout=10 -verbosity=0 -print_funcs=0 -print_final_stats=1
  done
}

step_readme() {
  local command program
  for command in "${README_COMMANDS[@]}"; do
    grep -qF -- "$command" README.md || fail "README.md does not mention: $command"
    program=${command%% *}
    have "$program" || fail "README.md mentions $command, but $program cannot be run"
  done
}

list() {
  local name
  for name in "${STEPS[@]}"; do printf '  %-8s %s\n' "$name" "${ABOUT[$name]}"; done
}

usage() {
  cat <<TEXT
Usage: ./test.sh [STEP...]     run these steps, or all of them
       ./test.sh --list        list the steps
       ./test.sh --help        show this

Needs Rust, Node, Go and Python on a Debian machine (for aiocometd also Python 3.9, in PATH, in pyenv or as
PYTHON39); installs the rest as root or by sudo.
All steps run, also after one has failed; the last line tells the outcome.

Environment: FUZZ_SECONDS (per target, default 60), CHROMIUM (path of a browser to use)

Steps:
TEXT
  list
}

case "${1:-}" in
  --help | -h) usage && exit ;;
  --list) list && exit ;;
esac

steps=("$@")
[ $# -gt 0 ] || steps=("${STEPS[@]}")
for name in "${steps[@]}"; do
  [ -n "${ABOUT[$name]:-}" ] || fail "no step \"$name\"; the steps are: ${STEPS[*]}"
done

failed=() skipped=() number=0
for name in "${steps[@]}"; do
  number=$((number + 1))
  printf '\n==> [%d/%d] %s: %s\n' "$number" "${#steps[@]}" "$name" "${ABOUT[$name]}"
  begin=$SECONDS
  # Not "if (step)": bash ignores errexit in everything that a condition calls.
  set +e
  (
    set -e
    "step_$name"
  )
  code=$?
  set -e
  case $code in
    0) outcome=passed ;;
    "$SKIPPED") outcome=SKIPPED skipped+=("$name") ;;
    130) exit 130 ;; # interrupted by the user
    *) outcome=FAILED failed+=("$name") ;;
  esac
  printf '<== [%d/%d] %s %s in %d s\n' "$number" "${#steps[@]}" "$name" "$outcome" $((SECONDS - begin))
done

echo
if [ ${#failed[@]} -gt 0 ]; then
  echo "${#failed[@]} of ${#steps[@]} steps FAILED in $SECONDS s: ${failed[*]}"
  exit 1
fi
if [ ${#skipped[@]} -gt 0 ]; then
  echo "$((${#steps[@]} - ${#skipped[@]})) steps passed in $SECONDS s, but SKIPPED: ${skipped[*]}"
  exit 0
fi
echo "all ${#steps[@]} steps passed in $SECONDS s"
