#!/usr/bin/env bash
# ./launch.sh                                       pretrain the default recipe; the first use makes .venv and installs
# ./launch.sh RECIPE --config FILE [--key value …]  run recipes/RECIPE.py; everything after RECIPE reaches it untouched
# ./launch.sh test [--slow] [pytest arguments]      the test suite; --slow adds the drills of minutes
# ./launch.sh lint                                  ruff, ruff format, mypy
# ./launch.sh docs                                  the documentation as a site, in site/; a warning is an error
# ./launch.sh --dry-run …                           print the commands, run nothing
#
# What it detects (NVIDIA GPUs, else the CPU; under SLURM also the machines) is overridden by these variables:
#   NUM_PROCESSES      total over all machines (default: every visible GPU, else one CPU process a machine)
#   NUM_MACHINES, MACHINE_RANK, MAIN_PROCESS_IP, MAIN_PROCESS_PORT       (under SLURM: srun --ntasks-per-node=1)
#   ACCELERATE_CONFIG  an accelerate YAML instead of the detected one; a name that begins with cpu means the CPU
#   MIXED_PRECISION    no, bf16, fp16 or fp8 for accelerate; unset: the recipe decides
#   CUDA_VISIBLE_DEVICES, OMP_NUM_THREADS (default: cores / processes of this machine)
#   HFWARMUP_PYTHON    an interpreter that has everything: used as it is, nothing is installed
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${HFWARMUP_PYTHON:-$root/.venv/bin/python}
dry_run=
extra=

say() { echo "launch.sh: $*" >&2; }
die() { say "$@"; exit 1; }
show() { printf '%q ' "$@"; echo; }
run() { show "$@"; [[ $dry_run ]] || "$@"; }
wanted() { cat "$root/pyproject.toml" "$root/constraints.txt"; }
installed() {  # $1: an extra, or nothing
  local stamp
  for stamp in "$root/.venv/installed$1" "$root/.venv/installeddev"; do
    if [[ -f $stamp && $(<"$stamp") == "$(wanted)" ]]; then return; fi
  done
  return 1
}

build() {
  [[ -x $python && -x $root/.venv/bin/pip ]] || run python3 -m venv "$root/.venv"
  [[ $dry_run ]] || rm -f "$root/.venv"/installed*
  run "$python" -m pip install -q -c "$root/constraints.txt" -e "$root${1:+[$1]}"
  [[ $dry_run ]] || wanted > "$root/.venv/installed$1"
}

install() {
  if [[ ${HFWARMUP_PYTHON:-} ]] || installed "$1"; then return; fi
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
    die "python3 is $(python3 -V 2>&1 || true); Python 3.11 or newer is needed: put it first on PATH."
  if [[ $dry_run ]]; then build "$1"; return; fi
  mkdir -p "$root/.venv"
  {
    flock 9 2>/dev/null || true  # srun starts this script on every machine at once
    installed "$1" || build "$1"
  } 9> "$root/.venv/lock"
}

count_gpus() {  # those that nvidia-smi lists and CUDA_VISIBLE_DEVICES leaves
  local listed visible
  listed=$(nvidia-smi -L 2>/dev/null | grep -c '^GPU ' || true)
  case ${CUDA_VISIBLE_DEVICES-all} in
    all) visible=$listed ;;
    "" | -1 | NoDevFiles) visible=0 ;;
    *) visible=$(tr ',' '\n' <<<"$CUDA_VISIBLE_DEVICES" | grep -c .) ;;
  esac
  echo $((visible < listed ? visible : listed))
}

launch() {
  local gpus machines rank ip port config note here processes cores torch_sees
  local environment=() flags=()

  if [[ ${SLURM_JOB_ID:-} && ${SLURM_NNODES:-1} -gt 1 ]]; then
    [[ ${SLURM_LOCALID:-0} == 0 ]] || die "SLURM starts several tasks a node; launch.sh is one: srun --ntasks-per-node=1."
    : "${NUM_MACHINES:=$SLURM_NNODES}" "${MACHINE_RANK:=$SLURM_NODEID}"
    : "${MAIN_PROCESS_IP:=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)}"
    : "${MAIN_PROCESS_PORT:=$((20000 + SLURM_JOB_ID % 10000))}"  # jobs may share the first node
  fi
  machines=${NUM_MACHINES:-1} rank=${MACHINE_RANK:-0} ip=${MAIN_PROCESS_IP:-}
  if ((machines > 1)); then
    [[ ${MACHINE_RANK:-} && $ip ]] || die "NUM_MACHINES=$machines needs MACHINE_RANK (0 to $((machines - 1))) and MAIN_PROCESS_IP."
    port=${MAIN_PROCESS_PORT:-29500}
  else
    port=${MAIN_PROCESS_PORT:-0}  # 0: accelerate takes a free one, so two launches do not collide
  fi

  gpus=$(count_gpus) config=${ACCELERATE_CONFIG:-} note=
  here=$((gpus > 0 ? gpus : 1))
  case ${config##*/} in
    "") ;;
    cpu*)
      gpus=0 here=$([[ $config == *cpu_2proc.yaml ]] && echo 2 || echo 1)
      environment+=(CUDA_VISIBLE_DEVICES=)  # ACCELERATE_USE_CPU alone leaves TrainingArguments.device on the GPU
      ;;
    *) note="; ${config##*/} needs GPUs and becomes plain data parallel" ;;
  esac
  processes=${NUM_PROCESSES:-$((here * machines))}
  [[ $processes =~ ^[1-9][0-9]*$ ]] || die "NUM_PROCESSES=$processes is not a number of processes; give 1 or more."
  ((processes % machines == 0)) || die "NUM_PROCESSES=$processes is the total and does not divide over NUM_MACHINES=$machines."
  here=$((processes / machines))
  ((gpus == 0 || here <= gpus)) ||
    die "NUM_PROCESSES=$processes needs $here GPUs on each machine and $gpus are visible; lower it, or train on the CPU with CUDA_VISIBLE_DEVICES= ."

  if [[ -z $config ]]; then
    case $((gpus > 0)),$((processes > 1)),$((machines > 1)) in
      *,1) config=multi_node ;;
      0,0,*) config=cpu ;;
      0,1,*) config=cpu_2proc ;;
      1,0,*) config=single_gpu ;;
      1,1,*) config=multi_gpu ;;
    esac
    config=$root/configs/accelerate/$config.yaml
  fi
  [[ -f $config ]] || die "ACCELERATE_CONFIG=$config does not exist; there are: $(cd "$root" && echo configs/accelerate/*.yaml)"
  if ((processes > 1)) && grep -qE '^distributed_type:.*(NO|MULTI_CPU)' "$config"; then
    die "$config starts one process, and NUM_PROCESSES=$processes; take cpu_2proc.yaml or multi_gpu.yaml."
  fi

  if ((gpus == 0)); then
    say "no GPU: $processes process(es) on the CPU$note."
    environment+=(ACCELERATE_USE_CPU=true)
    # By default glibc maps and faults in every large tensor anew at each step: 10-20% of a small model's time.
    environment+=(MALLOC_MMAP_MAX_="${MALLOC_MMAP_MAX_:-0}" MALLOC_TRIM_THRESHOLD_="${MALLOC_TRIM_THRESHOLD_:-4294967296}")
    environment+=(MALLOC_TOP_PAD_="${MALLOC_TOP_PAD_:-268435456}")
  elif ((processes == 1 && gpus > 1)); then  # Trainer would wrap the model in DataParallel over all of them
    environment+=(CUDA_VISIBLE_DEVICES="$(cut -d, -f1 <<<"${CUDA_VISIBLE_DEVICES:-0}")")
  fi
  cores=$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)
  environment+=(OMP_NUM_THREADS="${OMP_NUM_THREADS:-$((cores > here ? cores / here : 1))}")
  flags+=(--config_file "$config" --num_processes "$processes" --num_machines "$machines" --machine_rank "$rank")
  flags+=(--main_process_port "$port" ${ip:+--main_process_ip "$ip"})
  flags+=(${MIXED_PRECISION:+--mixed_precision "$MIXED_PRECISION"})
  ((processes > 1)) || flags+=(--quiet)  # a recipe says what is wrong; no traceback of accelerate's under it

  install "$extra"
  if ((gpus > 0)) && [[ ! $dry_run ]]; then  # without CUDA in torch, every rank would train alone, in silence
    torch_sees=$("$python" -c 'import torch; print(torch.cuda.device_count())')
    ((torch_sees >= here)) || die "nvidia-smi lists $gpus GPUs and torch sees $torch_sees; install a torch that fits the driver."
  fi
  export HFWARMUP_COMMAND=$asked  # for the run's record
  show env "${environment[@]}" "$python" -m accelerate.commands.launch "${flags[@]}" "$@"
  [[ $dry_run ]] || exec env "${environment[@]}" "$python" -m accelerate.commands.launch "${flags[@]}" "$@"
}

asked=$(show "$0" "$@")
if [[ ${1:-} == --dry-run ]]; then dry_run=1; shift; fi
case ${1-} in
  "") launch "$root/recipes/pretrain_clm.py" --config "$root/configs/pretrain_clm/stdlib.yaml" ;;
  -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p;}' "${BASH_SOURCE[0]}" ;;
  test)
    shift
    install dev
    marker="not slow and not gpu"
    if [[ ${1:-} == --slow ]]; then marker="not gpu"; shift; fi
    cd "$root"
    run "$python" -m pytest -n 2 --dist loadfile -m "$marker" "$@"  # two files at a time: many only wait for ranks
    ;;
  lint)
    install dev
    cd "$root"
    run "$python" -m ruff check .
    run "$python" -m ruff format --check .
    run "$python" -m mypy
    ;;
  docs)
    install docs
    cd "$root"
    run env NO_MKDOCS_2_WARNING=1 "$python" -m mkdocs build --strict  # the variable: no advertisement of a successor
    ;;
  *)
    recipe=$root/recipes/$1.py
    [[ -f $recipe ]] || die "no recipe '$1'; there are: $(cd "$root/recipes" && echo *.py | sed 's/\.py//g')."
    if [[ $1 == finetune_sft ]]; then extra=sft; fi  # trl and peft
    shift
    launch "$recipe" "$@"
    ;;
esac
