# The Job of a terraform step: init, plan, and apply where the plan changes something.
# Its arguments are those of init. What it says last begins with "davit: ".
set -u
say() { echo "davit: $*"; }
die() { say "$*"; exit 1; }
out=$TF_DATA_DIR/davit-out pipe=$TF_DATA_DIR/davit-pipe child='' stopped=''
mkdir -p "$TF_DATA_DIR" || die "$TF_DATA_DIR cannot be made"

# Terraform lets go of its lock and keeps its state when it is asked to end, so it is
# asked, and waited for.
trap 'stopped=1; [ -z "$child" ] || kill -TERM "$child" 2>/dev/null' TERM INT

# over ends all if the step's time is over. What was not begun need not be asked to end.
over() {
  [ -z "$stopped" ] || die "the step's time was over: $DAVIT_TF was asked to stop. Give the step a longer timeout, and retry it: it goes on from the state"
}

# run runs a program, shows what it says, and keeps that in $out.
run() {
  over
  rm -f "$pipe"; mkfifo "$pipe" || die "$pipe cannot be made: the image needs mkfifo, tee, sed, grep, head and tail"
  tee "$out" <"$pipe" & tee=$!
  "$@" >"$pipe" 2>&1 & child=$!
  code=0
  while :; do
    wait "$child"; code=$?
    kill -0 "$child" 2>/dev/null || break
  done
  child=''
  wait "$tee"
  over
  return "$code"
}

# failed says what came of an error, and what to do.
failed() {
  if grep -q 'Error acquiring the state lock' "$out"; then
    id=$(sed -n 's/^[^A-Za-z]*ID: *\([^ ]*\).*/\1/p' "$out" | tail -n 1)
    who=$(sed -n 's/^[^A-Za-z]*Who: *\(.*[^ ]\) *$/\1/p' "$out" | tail -n 1)
    since=$(sed -n 's/^[^A-Za-z]*Created: *\(.*[^ ]\) *$/\1/p' "$out" | tail -n 1)
    # The http backend shows its own asking as the lock's, and names the lock beside it.
    other=$(sed -n 's/.*already locked: ID=\([^ ]*\).*/\1/p' "$out" | tail -n 1)
    [ -z "$other" ] || { id=$other; who=; since=; }
    die "the state is locked by ${who:-somebody} since ${since:-nobody knows when}. Wait and retry the step if that still goes on; if it is dead: $DAVIT_TF force-unlock ${id:-ID}, then retry the step"
  fi
  why=$(sed -n 's/^[^A-Za-z]*Error: *//p' "$out" | head -n 3 | tr '\n' ';')
  die "$1 failed: ${why:-it ended with code $code, and its log says no more}"
}

command -v "$DAVIT_TF" >/dev/null 2>&1 || [ -x "$DAVIT_TF" ] || die "the image has no $DAVIT_TF: say program in the step, or take another image"
cd "$DAVIT_TF_WORK" || die "$DAVIT_TF_WORK is not there"
if [ -n "${DAVIT_TF_CONFIG:-}" ]; then
  # Names with a dot are its own, .terraform.lock.hcl above all; with two, the volume's.
  for file in "$DAVIT_TF_CONFIG"/* "$DAVIT_TF_CONFIG"/.[!.]*; do
    [ ! -f "$file" ] || cp -L "$file" . || die "the configuration cannot be copied"
  done
fi
if [ -n "${DAVIT_TF_MODULE:-}" ]; then set -- "-from-module=$DAVIT_TF_MODULE" "$@"; fi
if [ -n "${DAVIT_TF_DIRECTORY:-}" ]; then cd "$DAVIT_TF_DIRECTORY" || die "the image has no directory $DAVIT_TF_DIRECTORY"; fi

run "$DAVIT_TF" init -input=false -no-color "$@" || failed init
kept=$TF_DATA_DIR/terraform.tfstate
if ! grep -q '"backend"' "$kept" 2>/dev/null || grep -q '"type": *"local"' "$kept"; then
  die "the configuration has no backend, so its state would go with this Job: give it one that outlives both sites, such as s3 (docs/plans.md, Infrastructure)"
fi
if [ -n "${DAVIT_TF_WORKSPACE:-}" ]; then
  if [ "$DAVIT_TF_WHAT" = plan ]; then
    run "$DAVIT_TF" workspace select -no-color "$DAVIT_TF_WORKSPACE" || die "there is no workspace $DAVIT_TF_WORKSPACE yet: the first apply makes it, or make it by hand to rehearse the step"
  else
    run "$DAVIT_TF" workspace select -no-color -or-create=true "$DAVIT_TF_WORKSPACE" || failed "workspace select"
  fi
fi

case $DAVIT_TF_WHAT in
plan) # a drill: it changes nothing, and takes no lock that a run could need
  code=0; run "$DAVIT_TF" plan -input=false -no-color -lock=false -detailed-exitcode || code=$?
  case $code in
  0) say "only planned: no changes" ;;
  2) say "only planned: $(sed -n 's/^Plan: //p' "$out" | tail -n 1)" ;;
  *) failed plan ;;
  esac ;;
apply)
  code=0; run "$DAVIT_TF" plan -input=false -no-color "-lock-timeout=$DAVIT_TF_PATIENCE" -detailed-exitcode "-out=$DAVIT_TF_WORK/davit.plan" || code=$?
  case $code in
  0) say "no changes: all was there" ;;
  2)
    run "$DAVIT_TF" apply -input=false -no-color -auto-approve "-lock-timeout=$DAVIT_TF_PATIENCE" "$DAVIT_TF_WORK/davit.plan" || failed apply
    say "applied: $(sed -n 's/^Apply complete! Resources: //p' "$out" | tail -n 1)" ;;
  *) failed plan ;;
  esac ;;
destroy)
  run "$DAVIT_TF" destroy -input=false -no-color -auto-approve "-lock-timeout=$DAVIT_TF_PATIENCE" || failed destroy
  say "destroyed: $(sed -n 's/^Destroy complete! Resources: //p' "$out" | tail -n 1)" ;;
esac
