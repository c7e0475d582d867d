#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
# audit.sh: are the modules of each go.mod here at versions without known
# advisories, called or not? Ends with 1 when one has some, with 2 when the
# database can't be reached, and nothing is known. GOVULNDB names another.
set -u
version=v1.9.0
found=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT
for file in $(git ls-files 'go.mod' '*/go.mod'); do
	echo "$file"
	# It wants a folder with Go in it, and looks at the whole module.
	folder=$(go -C "$(dirname "$file")" list -f '{{.Dir}}' ./... | head -1)
	timeout "${AUDIT_SECONDS:-300}" go run "golang.org/x/vuln/cmd/govulncheck@$version" \
		-C "$folder" -scan module ${GOVULNDB:+-db "$GOVULNDB"} >"$log" 2>&1
	case $? in
	0) ;;
	# go run says how the program ended, and ends with 1 itself.
	*)
		if ! grep -q '^Vulnerability #' "$log"; then
			tail -5 "$log"
			echo "audit: $file WAS NOT CHECKED: govulncheck can't be fetched, or can't reach its database (GOVULNDB names another)" >&2
			exit 2
		fi
		cat "$log"
		found=1
		;;
	esac
done
[ $found = 0 ] && echo "no known advisories"
exit $found
