#!/bin/sh
# Subscribes with curl alone, by long-polling, and prints each message as a line of JSON. Ctrl-C ends it.
#
#   ./subscribe.sh '/chat/*'
#
# BAYEUX_URL is where the server speaks Faye's dialect (http://127.0.0.1:8000/bayeux).
set -eu

url=${BAYEUX_URL:-http://127.0.0.1:8000/bayeux}
case ${1-} in
  /*) channel=$1 ;;
  *) echo "usage: $0 /CHANNEL-OR-PATTERN" >&2; exit 2 ;;
esac
case $channel in *[\"\\]*) echo "$channel: not a channel" >&2; exit 2 ;; esac

# Longer than the server holds a poll.
post() { curl -sS --max-time 120 -H 'Content-Type: application/json' -d "$1" "$url"; }

# Prints each element of a JSON array on a line of its own. It needs to know no more of JSON than strings and brackets.
elements() {
  awk '{
    depth = 0; quoted = 0; escaped = 0; element = ""
    for (i = 1; i <= length($0); i++) {
      c = substr($0, i, 1)
      if (escaped) escaped = 0
      else if (quoted && c == "\\") escaped = 1
      else if (c == "\"") quoted = !quoted
      else if (!quoted && (c == "[" || c == "{")) { if (depth++ == 0) continue }
      else if (!quoted && (c == "]" || c == "}")) depth--
      if (!quoted && (depth == 0 || (depth == 1 && c == ","))) { if (element != "") print element; element = "" }
      else element = element c
      # The bracket that ends an element belongs to it.
      if (!quoted && depth == 1 && c == "}") { print element; element = "" }
    }
  }'
}

session=
open_session() {
  answer=$(post '{"channel":"/meta/handshake","version":"1.0","supportedConnectionTypes":["long-polling"]}') || return 1
  session=$(printf '%s' "$answer" | sed -n 's/.*"clientId":"\([^"]*\)".*/\1/p')
  [ -n "$session" ] || { echo "no session: $answer" >&2; return 1; }
  answer=$(post '{"channel":"/meta/subscribe","clientId":"'"$session"'","subscription":"'"$channel"'"}') || { session=; return 1; }
  case $answer in
    *'"successful":true'*) echo "subscribed to $channel" >&2 ;;
    *) echo "refused: $answer" >&2; exit 1 ;; # asking again would not change it
  esac
}

trap '[ -z "$session" ] || post "{\"channel\":\"/meta/disconnect\",\"clientId\":\"$session\"}" >/dev/null 2>&1; exit 0' INT TERM

poll=1
while :; do
  if [ -z "$session" ]; then
    open_session || { sleep 2; continue; }
  fi
  # One that failed is repeated under its id: so the server knows that nothing of it arrived, and sends the same again.
  answer=$(post '{"channel":"/meta/connect","clientId":"'"$session"'","connectionType":"long-polling","id":"'$poll'"}') ||
    { sleep 2; continue; }
  # In Faye's dialect the reply to the connect comes first, and the messages after it.
  lines=$(printf '%s\n' "$answer" | elements)
  reply=$(printf '%s\n' "$lines" | sed -n 1p)
  case $reply in
    *'"channel":"/meta/connect"'*'"successful":true'*)
      poll=$((poll + 1))
      printf '%s\n' "$lines" | sed 1d ;;
    *'"reconnect":"none"'*) echo "the server ended it: $reply" >&2; exit 1 ;;
    *'"error":"401'*) echo 'the session has ended: messages may be missing' >&2; session= ;;
    *) echo "no answer from the server: $answer" >&2; sleep 2 ;;
  esac
done
