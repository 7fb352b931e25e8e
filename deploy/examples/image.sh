#!/usr/bin/env bash
# image.sh NAME DIRECTORY ARCHIVE ENTRYPOINT: an OCI archive of one layer, for `ctr images import`.
# ENTRYPOINT is a JSON list.
set -euo pipefail
name=$1 directory=$2 archive=$3 entrypoint=$4
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
blobs=$work/oci/blobs/sha256
mkdir -p "$blobs"

digest() { sha256sum "$1" | cut -d' ' -f1; }
size() { stat -c %s "$1"; }
keep() { # FILE: moves a blob to its place, prints its digest
    local sum
    sum=$(digest "$1")
    mv "$1" "$blobs/$sum"
    echo "$sum"
}

tar -C "$directory" --owner=0 --group=0 --sort=name --mtime=@0 -cf "$work/layer" .
layer_size=$(size "$work/layer")
layer=$(keep "$work/layer")
architecture=$(dpkg --print-architecture)
printf '{"architecture":"%s","os":"linux","config":{"Entrypoint":%s,"Env":["PATH=/bin"]},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
    "$architecture" "$entrypoint" "$layer" >"$work/config"
config_size=$(size "$work/config")
config=$(keep "$work/config")
oci=application/vnd.oci.image
printf '{"schemaVersion":2,"mediaType":"%s.manifest.v1+json","config":{"mediaType":"%s.config.v1+json","digest":"sha256:%s","size":%s},"layers":[{"mediaType":"%s.layer.v1.tar","digest":"sha256:%s","size":%s}]}' \
    $oci $oci "$config" "$config_size" $oci "$layer" "$layer_size" >"$work/manifest"
manifest_size=$(size "$work/manifest")
manifest=$(keep "$work/manifest")
echo '{"imageLayoutVersion":"1.0.0"}' >"$work/oci/oci-layout"
printf '{"schemaVersion":2,"manifests":[{"mediaType":"%s.manifest.v1+json","digest":"sha256:%s","size":%s,"annotations":{"io.containerd.image.name":"%s"}}]}\n' \
    $oci "$manifest" "$manifest_size" "$name" >"$work/oci/index.json"
tar -C "$work/oci" -cf "$archive" .
