#!/bin/bash
# Builds programs that nobody here wrote from the sources of Debian or Ubuntu, against the CUDA
# toolkit, and runs them on the library that stands in for its runtime:
#
#   tools/foreign.sh [FOLDER [PROGRAM...]]
#
# PROGRAMs are hwloc and starpu; without, both. Sources and builds stay in FOLDER, outside of the
# repository, or else in a temporary one that is removed. The toolkit is in $CUDA_HOME or
# /usr/local/cuda. Exits nonzero if a program does not do what it does on devices.
set -euo pipefail

root=$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")
# shellcheck source=tools/packages.sh
source "$root/tools/packages.sh"

toolkit=${CUDA_HOME:-/usr/local/cuda}
if [[ ! -e $toolkit/lib64/libcudart.so.13 ]]; then
  say "there is no CUDA 13 toolkit in $toolkit"
  exit 1
fi

need dpkg-dev "unpacks sources" have_command dpkg-source
need pkg-config "is what they are configured with" have_command pkg-config
need make "builds them" have_command make
install_missing

case ${1:-} in
  '') folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT ;;
  *) folder=$(mkdir -p "$1" && cd "$1" && pwd) ;;
esac
programs=("${@:2}")
[[ ${#programs[@]} -gt 0 ]] || programs=(hwloc starpu)

#===-- Sources -------------------------------------------------------------===//

# The lists of sources are the script's own: machines seldom have them.
apt_get() {
  apt-get -o Dir::Etc::sourcelist="$folder/apt/sources.list" -o Dir::Etc::sourceparts=/dev/null \
    -o Dir::State::lists="$folder/apt/lists" -o APT::Sandbox::User=root -qq "$@"
}

list_sources() {
  mkdir -p "$folder/apt/lists/partial"
  # shellcheck disable=SC2016  # apt-get's own variables
  apt-get indextargets --format 'deb-src $(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
    sort -u > "$folder/apt/sources.list"
  apt_get update
}

# fetch PACKAGE: unpacks its source into $folder/PACKAGE, as its authors released it.
fetch() {
  [[ ! -d $folder/$1 ]] || return 0
  [[ -d $folder/apt ]] || list_sources
  (cd "$folder/apt" && apt_get source --download-only "$1")
  mkdir "$folder/$1.part"
  tar -xf "$folder/apt/$1"_*.orig.tar.* -C "$folder/$1.part" --strip-components=1
  mv "$folder/$1.part" "$folder/$1"
}

# build PROGRAM FLAG...: fetches, configures, builds and installs it into $folder/install/PROGRAM, with
# what it says in $folder/PROGRAM.log.
build() {
  local program=$1
  shift
  fetch "$program"
  [[ ! -d $folder/install/$program ]] || return 0
  say "building $program"
  if ! (cd "$folder/$program" && ./configure --prefix="$folder/install/$program" "$@" &&
    make -j"$(nproc)" && make install) > "$folder/$program.log" 2>&1; then
    tail -n 20 "$folder/$program.log" >&2
    say "$program does not build"
    rm -rf "$folder/install/$program"
    return 1
  fi
}

#===-- Running -------------------------------------------------------------===//

failed=0

# expect LINES PATTERN OUTPUT: so many lines of the file match.
expect() {
  local found
  found=$(grep -cE "$2" "$3" || true)
  if [[ $found -ne $1 ]]; then
    say "FAILED: $found lines, not $1, match: $2"
    failed=1
  fi
}

# on_standin COMMAND...: runs it and shows what it prints, which is also in $folder/output.
on_standin() {
  say "running ${*##*/}"
  LD_LIBRARY_PATH=$standin "$@" 2>&1 | tee "$folder/output"
}

export CUDASIM_DEVICES=2 CUDASIM_MEMORY=80GiB,24GiB

"$root/bazelw" build -c opt //cudasim:libcudart.so.13
mkdir -p "$folder/standin"
cp -f "$root/bazel-bin/cudasim/libcudart.so.13" "$folder/standin/"
standin=$folder/standin

#===-- Programs ------------------------------------------------------------===//

# hwloc: lstopo shows the devices, which a plugin asks the runtime for. While it is configured, a
# program linked with the runtime is tried as well.
run_hwloc() {
  build hwloc --enable-plugins --with-cuda="$toolkit" --disable-opencl --disable-nvml --disable-rsmi \
    --disable-levelzero --disable-gl --disable-cairo --disable-libxml2
  on_standin "$folder/install/hwloc/bin/lstopo-no-graphics" -v | grep CUDA
  expect 1 'Co-Processor\(CUDA\).*CUDAGlobalMemorySize=83886080 .*"cuda0"' "$folder/output"
  expect 1 'Co-Processor\(CUDA\).*CUDAGlobalMemorySize=25165824 .*"cuda1"' "$folder/output"
}

# What StarPU of Debian 12 uses and CUDA 13 no longer has: a field of the properties, and the names of
# an old interface of cuBLAS in one file with those of the new one.
adapt_starpu() {
  local source=$folder/starpu
  cat > "$source/include/both_cublas.h" << 'END'
#include <cublas_v2.h>
typedef cublasStatus_t cublasStatus;
cublasStatus_t cublasInit(void);
cublasStatus_t cublasShutdown(void);
cublasStatus_t cublasSetKernelStream(cudaStream_t stream);
END
  sed -i 's|<cublas.h>|<both_cublas.h>|' "$source"/src/drivers/cuda/{starpu_cublas.c,driver_cuda.h}
  sed -i 's/props\[devid\]\.computeMode == cudaComputeModeExclusive/0/' \
    "$source/src/drivers/cuda/driver_cuda.c"
}

# StarPU: it finds the devices, starts a worker for each, and measures copies between them.
run_starpu() {
  fetch starpu
  adapt_starpu
  build starpu --enable-cuda --with-cuda-dir="$toolkit" --without-hwloc --disable-opencl --disable-mpi \
    --disable-fortran --disable-build-doc --disable-build-doc-pdf --disable-socl --disable-starpufft \
    --disable-starpurm --disable-starpu-top --disable-build-examples --disable-build-tests \
    --disable-static
  export STARPU_HOME=$folder/starpu_home
  mkdir -p "$STARPU_HOME"
  on_standin "$folder/install/starpu/bin/starpu_machine_display"
  expect 1 '^2 STARPU_CUDA_WORKER workers:' "$folder/output"
  expect 2 '^CUDA [01][[:space:]]+[1-9][0-9]*[[:space:]]+[0-9]+[[:space:]]+[0-9]+[[:space:]]*$' "$folder/output"
}

for program in "${programs[@]}"; do
  case $program in
    hwloc) run_hwloc ;;
    starpu) run_starpu ;;
    *) say "there is no program $program here" && exit 2 ;;
  esac
done
exit $failed
