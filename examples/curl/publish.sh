#!/bin/sh
# Publishes with curl alone: one message given as an argument, or each line of standard input. Messages are JSON.
#
#   ./publish.sh /chat/lobby '{"name":"curl","text":"hello"}'
#   printf '1\n2\n3\n' | ./publish.sh /numbers
#
# BAYEUX_URL is where the server speaks Faye's dialect (http://127.0.0.1:8000/bayeux). Ends with 0 when everything is
# stored, and with 1 at the first message that is not.
set -eu

url=${BAYEUX_URL:-http://127.0.0.1:8000/bayeux}
case ${1-} in
  /*) channel=$1 ;;
  *) echo "usage: $0 /CHANNEL [JSON]" >&2; exit 2 ;;
esac
# Would leave its string in the request. No channel has one.
case $channel in *[\"\\]*) echo "$channel: not a channel" >&2; exit 2 ;; esac

publish() {
  # From standard input, for `-d "@..."` as an argument would read a file, and a list of arguments has an end.
  answer=$(printf '{"channel":"%s","data":%s}' "$channel" "$1" |
    curl -sS --max-time 30 -H 'Content-Type: application/json' --data-binary @- "$url") || exit 1
  # The server answers after it has stored the message, so this is all there is to look at.
  case $answer in
    *'"successful":true'*) ;;
    *) echo "not published: $answer" >&2; exit 1 ;;
  esac
}

if [ $# -gt 1 ]; then
  publish "$2"
else
  while IFS= read -r line || [ -n "$line" ]; do
    [ -z "$line" ] || publish "$line"
  done
fi
