#!/usr/bin/env bash
# One video with nothing but curl and jq:  ./generate.sh woman.jpg "A woman is playing a violin." out.mp4
#
# HUNYUAN_URL is the server, FAL_KEY its key if it asks for one; after LIMIT_S seconds the request is cancelled, and a call
# that fails is repeated RETRIES times.
# Exit codes: 0 the video is there; 1 the request failed, the reason is on stderr; 2 wrong usage; 3 the server cannot be
# reached; 4 not done within LIMIT_S; 130 interrupted. Where there is no video, the request is cancelled and no file is left.
set -euo pipefail

SERVER=${HUNYUAN_URL:-http://127.0.0.1:8000}
QUEUE=$SERVER/queue/fal-ai/hunyuan-custom
LIMIT_S=${LIMIT_S:-7200}
RETRIES=${RETRIES:-4}

fail() {
  printf '%s\n' "$2" >&2
  exit "$1"
}

[ $# -eq 3 ] || fail 2 "usage: $0 PHOTO PROMPT VIDEO"
for program in curl jq; do
  command -v "$program" >/dev/null || fail 2 "needs $program"
done
photo=$1 prompt=$2 video=$3
[ -r "$photo" ] || fail 2 "$photo: cannot be read"

id=
scratch=$(mktemp -d)
finish() {
  local code=$?
  trap - EXIT
  if [ -n "$id" ]; then call -o /dev/null -X PUT "$QUEUE/requests/$id/cancel" || true; fi
  rm -rf "$scratch" "$video.part"
  exit "$code"
}
trap finish EXIT
trap 'exit 130' INT TERM

# The key goes through a file: arguments are visible to all users of the machine. `--retry` takes lost connections and
# 408, 429, 5xx with growing pauses.
: >"$scratch/headers"
if [ -n "${FAL_KEY:-}" ]; then printf 'Authorization: Key %s\n' "$FAL_KEY" >"$scratch/headers"; fi
fetch() {
  curl --silent --show-error --retry "$RETRIES" --retry-connrefused --max-time 300 "$@"
}
call() {
  fetch -H @"$scratch/headers" "$@"
}

# An answer's body to a file, its status to stdout. What happens after an error is the caller's choice.
ask() {
  call -o "$scratch/answer" -w '%{http_code}' "$@" || fail 3 "$SERVER cannot be reached"
}

reason() {
  jq -r '.detail | if type == "array" then map("\(.loc | join(".")): \(.msg)") | join("\n") else . end' \
    "$scratch/answer" 2>/dev/null || head -c 500 "$scratch/answer"
}

# One `Idempotency-Key` for all tries of this submit: a repeated one finds the request of the first.
base64 "$photo" | tr -d '\n' |
  jq -Rs --arg prompt "$prompt" '{prompt: $prompt, image_url: ("data:image/*;base64," + .)}' >"$scratch/request"
status=$(ask -H 'Content-Type: application/json' -H "Idempotency-Key: $(basename "$scratch")-$$-$(date +%s)" \
  --data-binary @"$scratch/request" "$QUEUE")
[ "$status" = 200 ] || fail 1 "HTTP $status: $(reason)"
id=$(jq -r .request_id "$scratch/answer")

# 202 while it waits or runs, 200 when it is over. The pause grows from half a second to ten.
pause=0.5
until status=$(ask "$QUEUE/requests/$id/status") && [ "$status" = 200 ]; do
  [ "$status" = 202 ] || fail 1 "HTTP $status: $(reason)"
  [ "$SECONDS" -lt "$LIMIT_S" ] || fail 4 "$id: not done within $LIMIT_S s"
  sleep "$pause"
  pause=$(jq -n "[$pause * 1.5, 10] | min")
done

status=$(ask "$QUEUE/requests/$id")
done_id=$id id= # it is over: nothing to cancel
[ "$status" = 200 ] || fail 1 "$done_id: HTTP $status: $(reason)"
url=$(jq -r .video.url "$scratch/answer")
fetch --fail --location -o "$video.part" "$url" || fail 1 "$done_id: $url: the download failed"
mv "$video.part" "$video"
printf '%s, seed %s\n' "$video" "$(jq -r .seed "$scratch/answer")"
