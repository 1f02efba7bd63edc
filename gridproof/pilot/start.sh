# How a pilot's job begins, on a node of which only /bin/sh, tar and gzip are taken for granted. Above stand the
# session's settings. Every line of the trace also goes to the file that the Grid adds to the job's own.
GRIDPROOF_TRACE=$PWD/.alienValidation.trace
export GRIDPROOF_TRACE
node=$(uname -n)

trace() {
    echo "gridproof pilot: $1" >&2
    echo "gridproof pilot: $1" >>"$GRIDPROOF_TRACE"
}

fail() {
    trace "cannot start at ${ALIEN_SITE:-an unnamed site} ($node): $2"
    exit "$1"
}

# The node's libraries of a ROOT that is not to be used stay out of the way of the bundle's.
forget_root() {
    [ -n "${ROOTSYS:-}" ] || return 0
    kept=
    old_ifs=$IFS
    IFS=:
    for place in ${LD_LIBRARY_PATH:-}; do
        case $place in "$ROOTSYS"*) ;; *) kept=$kept${kept:+:}$place ;; esac
    done
    IFS=$old_ifs
    LD_LIBRARY_PATH=$kept
    export LD_LIBRARY_PATH
    unset ROOTSYS ROOT_INCLUDE_PATH
}

unpack() {
    [ -f "$bundle" ] || fail 82 "its bundle $bundle is not among the job's input files"
    size=$(($(wc -c <"$bundle")))
    [ "$size" -eq "$bundle_size" ] ||
        fail 82 "its bundle $bundle has $size bytes instead of $bundle_size: was it cut off on its way?"
    if command -v sha256sum >/dev/null; then
        [ "$(sha256sum <"$bundle")" = "$bundle_sha256  -" ] ||
            fail 82 "its bundle $bundle was damaged on its way: its SHA-256 is not $bundle_sha256"
    fi
    [ "$(uname -m)" = "$bundle_machine" ] ||
        fail 82 "its bundle is for $bundle_machine, but this node is $(uname -m): leave its site out, or make a bundle on such a machine"
    glibc=$(getconf GNU_LIBC_VERSION 2>/dev/null)
    minor=${glibc#glibc 2.}
    [ "${minor%%[!0-9]*}" ] && [ "${minor%%[!0-9]*}" -lt "$bundle_glibc" ] &&
        fail 82 "its bundle needs glibc 2.$bundle_glibc, found $glibc: make one with 'gridproof pilot bundle --glibc 2.$minor'"
    said=$(tar -xzf "$bundle" 2>&1) ||
        fail 82 "its bundle could not be unpacked: $(echo "$said" | tail -n 1); free here: $(df -Ph . | tail -n 1)"
    rm -f "$bundle"
    PYTHONPATH=$PWD/gridproof-bundle${PYTHONPATH:+:$PYTHONPATH}
    export PYTHONPATH
    [ -z "$bundle_root" ] || forget_root
}

[ -z "${TMPDIR:-}" ] || mkdir -p "$TMPDIR"
[ -z "$bundle" ] || unpack

others=
newline='
'
own=$PWD/gridproof-bundle/python/bin/python${wanted_python%.*}
for candidate in "$python" "python${wanted_python%.*}" "$own"; do
    command -v "$candidate" >/dev/null || continue
    found=$("$candidate" -c "$probe" "$wanted_python" "$wanted_gridproof" "$wanted_distributed" "$wanted_root" 2>&1)
    code=$?
    found=${found##*"$newline"}
    case $code in
    0)
        trace "runs at ${ALIEN_SITE:-an unnamed site} ($node): $found"
        exec "$candidate" -m gridproof.pilot pilot.json
        ;;
    83 | 84) fail "$code" "$found" ;;
    81) others="$others${others:+, }$found" ;;
    *) others="$others${others:+, }$candidate that fails ($found)" ;;
    esac
done
fail 81 "Python ${wanted_python%.*} is wanted, found ${others:-neither $python nor python${wanted_python%.*}} (PATH $PATH): \
name packages of the Grid with it in pilots.packages, its path in pilots.python, or bring it along with \
'gridproof pilot bundle --with-python'"
