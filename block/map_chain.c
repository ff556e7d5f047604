/* What a range is for a reader of the whole chain, and who in it says so.
 *
 * Thread: the image's loop. */
#include "block/map_chain.h"

#include <errno.h>

int image_map_chain(struct fiber *f, struct image *img, u64 goff, u64 bytes,
		    struct chain_extent *out)
{
	int ret;

	*out = (struct chain_extent){.image = img};
	ret = image_map(f, img, goff, bytes, &out->map);
	while (ret == 0 && !(out->map.kind & MAP_ALLOC)) {
		struct image *backing = out->image->backing;

		bytes = out->map.bytes;
		if (!backing || goff >= backing->bytes) {
			/* Nobody has it, or all that have it are shorter. */
			out->map = (struct map_extent){.bytes = bytes, .kind = MAP_ZERO};
			return 0;
		}
		out->image = backing;
		out->depth++;
		ret = image_map(f, backing, goff, bytes, &out->map);
	}
	return ret;
}
