#!/bin/bash
# Packs programs and what they need into an archive; bundle() in bundle.bzl calls it.
#
#   bundle.sh ARCHIVE NAME RUN MANIFEST
#
# NAME is the archive's folder and RUN the script in it. A line of the MANIFEST is a kind (test, alone,
# program or data), a path in the folder and the file, with tabs between.
set -euo pipefail

archive=$1
name=$2
run=$3
manifest=$4
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
folder=$work/$name

# Every Linux has these, in the version that its loader needs.
glibc='^(ld-linux.*|lib(c|m|mvec|dl|rt|pthread|resolv|util|anl|nsl|thread_db|nss_.*|BrokenLocale))\.so'

is_elf() { [[ $(head -c 4 "$1" | tr -d '\0') == $'\x7fELF' ]]; }

copy() {  # FILE PATH
  mkdir -p "$folder/$(dirname "$2")"
  cp -L "$1" "$folder/$2"
  chmod u=rwX,go=rX "$folder/$2"
  ! is_elf "$folder/$2" || strip --strip-unneeded "$folder/$2"
}

copy_all() {
  local kind path file
  while IFS=$'\t' read -r kind path file; do
    case $path in
      ../*) echo "bundle.sh: $file belongs to another repository" >&2; return 1 ;;
      # Bazel's links to shared libraries, and where cc_binary made them
      *.so | *.so.[0-9]*) copy "$file" "lib/${path##*/}" ;;
      *) copy "$file" "$path" ;;
    esac
    case $kind in
      test) echo "$path" ;;
      alone) echo "$path alone" ;;  # a test as well
    esac
  done < "$manifest" | sort > "$folder/test_programs"
}

# Prints the files of the shared libraries that the folder's programs and libraries load, once each.
loaded_libraries() {
  local file elves=()
  while IFS= read -r -d '' file; do
    ! is_elf "$file" || elves+=("$file")
  done < <(find "$folder" -type f -print0)
  LD_LIBRARY_PATH=$folder/lib ldd "${elves[@]}" > "$work/loaded"
  if grep 'not found' "$work/loaded" >&2; then
    echo "bundle.sh: these libraries are not on this machine" >&2
    return 1
  fi
  awk '$2 == "=>" { print $3 }' "$work/loaded" | sort -u
}

mkdir -p "$folder/lib"
cp -L "$run" "$folder/run"
chmod u=rwx,go=rx "$folder/run"
copy_all
loaded_libraries > "$work/libraries"
# pthread_exit loads it by name.
gcc -print-file-name=libgcc_s.so.1 >> "$work/libraries"
while IFS= read -r library; do
  base=${library##*/}
  if [[ ! $base =~ $glibc && ! -e $folder/lib/$base ]]; then
    copy "$library" "lib/$base"
  fi
done < "$work/libraries"

tar -C "$work" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -cf - "$name" |
  gzip -n > "$archive"
