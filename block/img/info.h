/* Parts of `info`; see info_crypt.c. */
#ifndef BLOCK_IMG_INFO_H
#define BLOCK_IMG_INFO_H

#include "block/image.h"

#include <stdio.h>

#include <jansson.h>

bool info_is_encrypted(const struct image *img);
/* Of a qcow2 image: the section "encrypt", nothing (NULL) if it is not encrypted. */
void info_print_encrypt(FILE *out, struct image *img);
json_t *info_encrypt_json(struct image *img);
/* Of a raw LUKS container: all that is special to the format. */
void info_print_luks(FILE *out, struct image *img);
json_t *info_luks_json(struct image *img);

#endif
