#!/bin/sh
# Lines of the standard input to one of triaged's input topics, by kcat (https://github.com/edenhill/kcat):
#
#   tail -F /var/log/app.log | KAFKA=localhost:9094 ./kcat.sh logs "$(hostname)"
#   jq -c '.[]' tickets.json | KAFKA=localhost:9094 ./kcat.sh tickets
#
# A second argument is the key of all lines, which keeps them in order, in one partition. Properties such as
# security.protocol come from a file that KCAT_CONFIG names.
set -eu
topic=${1:?usage: kcat.sh TOPIC [KEY]}
key=${2:-}
set -- -P -b "${KAFKA:-localhost:9094}" -t "$topic" -X acks=all -X enable.idempotence=true -X compression.codec=lz4
if [ -n "$key" ]; then
    set -- "$@" -k "$key"
fi
exec kcat "$@"
