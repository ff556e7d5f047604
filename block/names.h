/* Names of images that say how to open them: "json:{...}" and lists of options.
 *
 * Both become one flat list: {"file": {"driver": "file"}} is "file.driver=file".
 * A value that was a JSON number, truth value or null is marked `bare`; null is
 * the empty text. */
#ifndef BLOCK_NAMES_H
#define BLOCK_NAMES_H

#include "base/error.h"
#include "base/opts.h"

struct image;

bool name_is_json(const char *name);
/* "json:{...}" into a fresh list.  Names come from images too: depth and size are
 * bounded.  -EINVAL with the reference's words. */
int name_parse_json(const char *name, struct opts *out, struct error *err);
/* The name to show for an image that options describe: the host file's when that
 * says it all, else "json:{...}" (free() it). */
char *name_of_options(const struct image *img, const struct opts *o);
/* Does this name start with "protocol:"? */
bool name_has_protocol(const char *name);
/* Is it one of the names in `keys`, separated by blanks?  A key that ends in a
 * dot stands for all names that start so. */
bool name_in_keys(const char *keys, const char *name);

#endif
