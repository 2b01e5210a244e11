#!/bin/bash
# Write src/cert/trajectory/report/assets/uplot/ anew from the npm package: scripts/vendor_uplot.sh VERSION
# Needs npm. Look at the report in a browser afterwards, and run the tests named in the folder's README.
set -euo pipefail

version=${1:?usage: scripts/vendor_uplot.sh VERSION}
target=$(cd "$(dirname "$0")/.." && pwd)/src/cert/trajectory/report/assets/uplot
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

(cd "$work" && npm pack --silent "uplot@$version" >/dev/null && tar -xzf uplot-*.tgz)
# The banner names a web address, and a report names none.
{
    echo "/*! uPlot $version, MIT licence */"
    sed -E '1s|^/\*!.*\*/$||' "$work/package/dist/uPlot.iife.min.js" | sed '/./,$!d'
} >"$target/uPlot.iife.min.js"
cp "$work/package/dist/uPlot.min.css" "$work/package/LICENSE" "$target/"
# One final newline each, as for every text file here.
for file in uPlot.iife.min.js uPlot.min.css LICENSE; do
    sed -i -e '$a\' "$target/$file"
done
sha256sum "$target"/*.js "$target"/*.css
