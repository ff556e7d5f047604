/* Verification of an image's metadata.  Thread: the image's loop. */
#include "block/qcow2/parts.h"

#include <errno.h>

int qcow2_check(struct fiber *f, struct image *img, struct check_request *req, struct error *err)
{
	return err_set(err, -ENOTSUP, "Checking qcow2 images is not supported");
}
