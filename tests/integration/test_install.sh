#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# What is installed is enough to build against: the example of the README is compiled as its reader would, with
# pkg-config alone, against the shared and against the static library, and runs. What is installed is hardened.
#
# Usage: test_install.sh SOURCE BUILD SANITIZE CC...

# shellcheck disable=SC2317  # tap() calls the functions

set -euo pipefail

source=$1
build=$2
sanitize=$3
shift 3
cc=("$@" -std=c11 -Wall -Wextra -Werror -pedantic)
if [ "$sanitize" != none ]; then
	cc+=("-fsanitize=$sanitize")
fi

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# tap NUMBER NAME COMMAND...: not as a condition, where the shell would go on after a command that failed.
tap()
{
	local number=$1 name=$2 status=0

	shift 2
	"$@" >"$folder/log" 2>&1 &
	wait $! || status=$?
	if [ $status -eq 0 ]; then
		echo "ok $number - $name"
	else
		echo "not ok $number - $name"
		sed 's/^/# /' "$folder/log"
		failed=1
	fi
}

# library FOLDER: what pkg-config says of the one installed below it.
library()
{
	local root=$1 pc

	shift
	pc=$(dirname "$(find "$root" -name kvkeep.pc)")
	PKG_CONFIG_PATH=$pc PKG_CONFIG_SYSROOT_DIR=$root pkg-config "$@" kvkeep
}

install_to()
{
	meson install -C "$build" --no-rebuild --quiet --destdir "$1"
}

has_files()
{
	local name

	for name in include/kvkeep/kvkeep.h lib/kvkeep.pc lib/libkvkeep.a lib/libkvkeep.so lib/libkvkeep.so.0 bin/kvkeep \
		bash-completion/completions/kvkeep zsh/site-functions/_kvkeep; do
		if [ -z "$(find "$folder/shared" -path "*${name%%/*}*/${name##*/}")" ]; then
			echo "$name was not installed"
			return 1
		fi
	done
}

# Without scdoc there are none; else each is a page with the sections that `man` looks for.
has_pages()
{
	local name page

	for name in man1/kvkeep.1 man7/kvkeep.7 man3/libkvkeep.3; do
		page=$(find "$folder/shared" -path "*/man/$name")
		grep -q '^\.TH "kvkeep"\|^\.TH "libkvkeep"' "$page"
		grep -q '^\.SH NAME' "$page"
	done
}

# A program and a library that are entered where they should be only: no writable code, addresses of chance, tables that are
# read-only once they are filled, and a guard on the stack. Sanitizers bring their own.
is_hardened()
{
	local program library

	program=$(find "$folder/shared" -path '*/bin/kvkeep')
	library=$(find "$folder/shared" -name 'libkvkeep.so.0')
	for name in "$program" "$library"; do
		readelf -lW "$name" >"$folder/segments"
		readelf -dW "$name" >"$folder/dynamic"
		grep 'GNU_RELRO' "$folder/segments"
		grep 'GNU_STACK.* RW ' "$folder/segments"
		grep 'LOAD' "$folder/segments" >"$folder/loads"
		if grep ' RWE ' "$folder/loads"; then
			return 1
		fi
		grep 'FLAGS_1.*NOW' "$folder/dynamic"
		if grep 'TEXTREL' "$folder/dynamic"; then
			return 1
		fi
		readelf --dyn-syms -W "$name" | grep '__stack_chk_fail'
	done
	readelf -hW "$program" | grep 'Type: *DYN'
	readelf -dW "$library" | grep 'SONAME.*\[libkvkeep.so.0\]'
	readelf -VW "$library" | grep 'Name: KVKEEP_0'
}

# Each KVK_API function is exported, and nothing else is.
exports_the_api()
{
	local so

	so=$(find "$folder/shared" -name libkvkeep.so)
	nm -D --defined-only "$so" | awk '$2 == "T" { sub(/@.*/, "", $3); print $3 }' | sort >"$folder/exported"
	sed -n '/KVK_API/,/;/p' "$source"/include/kvkeep/*.h | grep -v '^#' | tr '\n' ' ' | sed 's/;/\n/g' |
		grep -o 'KVK_API [^(]*(' | grep -o 'kvk_[a-z_]*(' | tr -d '(' | sort >"$folder/declared"
	diff "$folder/declared" "$folder/exported"
}

runs()
{
	mkdir "$folder/$1.run"
	cd "$folder/$1.run"
	LD_LIBRARY_PATH=$2 "$folder/hello-$1" | tee out
	grep '^get: 20 bytes, proven: the KV of one block' out
}

shared()
{
	local flags

	read -r -a flags <<<"$(library "$folder/shared" --cflags --libs)"
	"${cc[@]}" -o "$folder/hello-shared" "$source/examples/hello.c" "${flags[@]}"
	readelf -d "$folder/hello-shared" >"$folder/needed"
	grep 'NEEDED.*libkvkeep.so.0' "$folder/needed"
	runs shared "$(dirname "$(find "$folder/shared" -name libkvkeep.so.0)")"
}

# Without the shared library beside it, -lkvkeep is the archive.
static()
{
	local flags

	find "$folder/static" -name 'libkvkeep.so*' -delete
	read -r -a flags <<<"$(library "$folder/static" --static --cflags --libs)"
	"${cc[@]}" -o "$folder/hello-static" "$source/examples/hello.c" "${flags[@]}"
	if readelf -d "$folder/hello-static" | grep 'NEEDED.*libkvkeep'; then
		return 1
	fi
	runs static /nowhere
}

failed=0
echo 1..6
install_to "$folder/shared"
install_to "$folder/static"
tap 1 'the files are there' has_files
tap 2 'exactly the API is exported' exports_the_api
tap 3 'the example runs with the shared library' shared
tap 4 'the example runs with the static library' static
if command -v scdoc >/dev/null; then
	tap 5 'the man pages are there' has_pages
else
	echo 'ok 5 - the man pages are there # SKIP scdoc is not installed'
fi
tap 6 'the command and the library are hardened, and have name and version' is_hardened
exit $failed
