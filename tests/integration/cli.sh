# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# What the tests of the command share; sourced with $kvkeep set. Goes to a new folder, which is removed at the end.

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export XDG_STATE_HOME=$folder/state

number=0
failed=0

# tap NAME COMMAND...: not as a condition, where the shell would go on after a command that failed.
tap()
{
	local name=$1 status=0

	shift
	number=$((number + 1))
	"$@" >log 2>&1 &
	wait $! || status=$?
	if [ $status -eq 0 ]; then
		echo "ok $number - $name"
	else
		echo "not ok $number - $name"
		sed 's/^/# /' log
		failed=1
	fi
}

# gives STATUS COMMAND...: the command ends with exactly this status; its output is in `out` and `err`.
gives()
{
	local wanted=$1 status=0

	shift
	"$@" >out 2>err || status=$?
	if [ "$status" -ne "$wanted" ]; then
		echo "$* ended with $status, wanted $wanted"
		cat out err
		return 1
	fi
}

# says FILE TEXT: a line of it contains the text.
says()
{
	if ! grep -qF -- "$2" "$1"; then
		echo "'$2' is not in $1:"
		cat "$1"
		return 1
	fi
}

# json EXPRESSION: holds for `out` as Python's value v.
json()
{
	python3 - "$1" <<'END'
import json, sys
v = json.load(open('out'))
if not eval(sys.argv[1]):
    sys.exit(f'{sys.argv[1]} does not hold for {v}')
END
}

# The file of the only object with this key.
object_file()
{
	"$kvkeep" stat --json "$1" "$2" | python3 -c 'import json, sys; print(sys.argv[1] + "/" + json.load(sys.stdin)["name"])' "$1"
}

flip_byte()
{
	python3 - "$1" "$2" <<'END'
import sys
with open(sys.argv[1], 'r+b') as file:
    file.seek(int(sys.argv[2]))
    byte = file.read(1)[0]
    file.seek(int(sys.argv[2]))
    file.write(bytes([byte ^ 1]))
END
}

key=llama@00000000@0@0123456789abcdef@acme
