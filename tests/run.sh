#!/usr/bin/env bash
# All tests of the workspace. Some hold the product to times that it promises, beside each
# other and on whatever machine this is: what fails beside others is judged once more,
# alone, and named at the end. What fails alone too is a failure, and so are more than a
# few at once.
#
#   tests/run.sh [ARGUMENT of cargo test]...
set -euo pipefail
cd "$(dirname "$0")/.."

few=3
cargo=${CARGO:-cargo}
said=$(mktemp)
trap 'rm -f "$said"' EXIT

if $cargo test --locked --workspace --no-fail-fast "$@" 2>&1 | tee "$said"; then exit 0; fi

# Which targets failed, as cargo sums them up, and which tests of the first, the second ...
mapfile -t targets < <(sed -n 's/^ *`-p [^ ]* \(--.*\)`$/\1/p' "$said")
mapfile -t failed < <(awk '
  /^ +Running / || /^ +Doc-tests / { target = $0 }
  /^test .* \.\.\. FAILED$/ {
    if (target != last) { number++; last = target }
    sub(/^test /, ""); sub(/ \.\.\. FAILED$/, "")
    print number - 1 "\t" $0
  }' "$said")
with_failed_tests=$(printf '%s\n' "${failed[@]}" | cut -f1 | sort -u | grep -c . || true)
if [ ${#failed[@]} = 0 ] || [ ${#failed[@]} -gt $few ] ||
  [ "$with_failed_tests" != ${#targets[@]} ]; then
  # Too many, one that was not built, or one that ended without a word.
  exit 1
fi
for one in "${failed[@]}"; do
  target=${targets[${one%%$'\t'*}]} name=${one#*$'\t'}
  echo "alone: $name"
  # shellcheck disable=SC2086 # an option and its value
  if ! $cargo test --locked --workspace $target -- --exact "$name" >"$said" 2>&1 ||
    ! grep -qFx "test $name ... ok" "$said"; then
    cat "$said"
    echo "$name fails alone, too"
    exit 1
  fi
done
echo "passed alone, after they had failed beside others:"
printf '  %s\n' "${failed[@]#*$'\t'}"
