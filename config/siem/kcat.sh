#!/bin/sh
# Lines of the standard input to one of triaged's input topics, by kcat (https://github.com/edenhill/kcat):
#
#   tail -F /var/log/app.log | KAFKA=localhost:9094 ./kcat.sh logs
#   jq -c '.[]' tickets.json | KAFKA=localhost:9094 ./kcat.sh tickets ticket_id
#
# A second argument names the field of a JSON line that becomes the key (it needs jq), so that what belongs to one ticket
# stays in order. Properties such as security.protocol come from a file that KCAT_CONFIG names.
set -eu
topic=${1:?usage: kcat.sh TOPIC [KEY-FIELD]}
field=${2:-}
# An unknown character in a key or a value must not end it: the separator is one that text does not hold.
separator=$(printf '\037')
produce() {
    kcat -P -b "${KAFKA:-localhost:9094}" -t "$topic" -X acks=all -X enable.idempotence=true -X compression.codec=lz4 "$@"
}
if [ -n "$field" ]; then
    jq -rc --arg field "$field" --arg separator "$separator" '(.[$field] | tostring) + $separator + tojson' | produce -K "$separator"
else
    produce
fi
