/* cowimg snapshot: what goes beyond the reference's subcommand. */
#ifndef BLOCK_IMG_SNAPSHOT_H
#define BLOCK_IMG_SNAPSHOT_H

#include "base/opts.h"
#include "block/img/img.h"

/* -e: the disk of one snapshot becomes an image of its own. */
struct snapshot_extract {
	const char *snapshot, *format; /* NULL: raw */
	char **files;		       /* the image, the one to make */
	struct opts options;	       /* -o */
	bool given, help, progress;
};
/* Takes 'O', 'o', 'p'. */
int snapshot_extract_option(struct img *ctx, struct snapshot_extract *e, int letter);
int snapshot_extract(struct img *ctx, struct snapshot_extract *e, const struct img_source *source);

/* --tree: who holds what. */
struct image;
int snapshot_tree(struct img *ctx, struct image *img, bool json);

/* --verify: of the read-only image, VM state of this snapshot (an id or a tag), NULL: of all. */
int snapshot_verify(struct img *ctx, struct image *img, const char *name, bool progress);

#endif
