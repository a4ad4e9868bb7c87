#!/bin/sh
# Print the path of the first of the named Pythons that metarun supports; without names: of python3 if it is supported,
# else of the newest. Names are looked up on the PATH and in the folders of pyenv and uv.
[ -n "$1" ] || set -- "$(command -v python3)" python3.13 python3.12 python3.11
pyenv="${PYENV_ROOT:-$HOME/.pyenv}/versions"
uv="${UV_PYTHON_INSTALL_DIR:-${XDG_DATA_HOME:-$HOME/.local/share}/uv/python}"

for name; do
  for python in "$(command -v "$name")" "$pyenv"/*/bin/"$name" "$uv"/*/bin/"$name"; do
    version="$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)"
    case "$version" in
    3.11 | 3.12 | 3.13)
      echo "using Python $version: $python" >&2
      echo "$python"
      exit
      ;;
    esac
  done
done
echo "metarun needs Python 3.11, 3.12 or 3.13 and found none (looked for $*): install one, for example with" \
  "\`uv python install 3.13\` or \`pyenv install 3.13\`, or name one: make PYTHON=/path/to/python3.13 ..." >&2
exit 1
