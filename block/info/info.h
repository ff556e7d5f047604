/* What an image is, in the reference's words, for people and as JSON.
 * Thread: the image's loop; nothing here suspends. */
#ifndef BLOCK_INFO_INFO_H
#define BLOCK_INFO_INFO_H

#include "block/image.h"

#include <stdio.h>

#include <jansson.h>

struct qcow2_snapshot;

void info_print(FILE *out, struct image *img);
json_t *info_json(struct image *img);

/* Internal snapshots as `snapshot -l` shows them, nothing if there are none; the
 * same for JSON, then NULL. */
void info_print_snapshots(FILE *out, struct image *img);
json_t *info_snapshots_json(struct image *img);
json_t *info_snapshot_json(const struct qcow2_snapshot *s);

/* What it takes on the host; false: not known of what another program keeps. */
bool info_disk_bytes(struct image *img, u64 *bytes);
bool info_is_encrypted(const struct image *img);
/* Of a qcow2 image: the section "encrypt", nothing (NULL) if it is not encrypted. */
void info_print_encrypt(FILE *out, struct image *img);
json_t *info_encrypt_json(struct image *img);
/* Of a raw LUKS container: all that is special to the format. */
void info_print_luks(FILE *out, struct image *img);
json_t *info_luks_json(struct image *img);

#endif
