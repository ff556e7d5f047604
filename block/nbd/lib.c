/* Loading libnbd; see lib.h.  Thread: any. */
#define _GNU_SOURCE
#include "block/nbd/lib.h"

#include <dlfcn.h>
#include <errno.h>

#define NAME "libnbd.so.0"

int nbd_lib_load(struct nbd_lib *lib, struct error *err)
{
	/* Never closed: what it has brought does not survive being loaded twice. */
	void *so = dlopen(NAME, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
	bool all = so;

	if (!so)
		return err_set(err, -ENOENT, "NBD needs " NAME ": %s", dlerror());
#define LOAD(name)                                                                                 \
	*(void **)(void *)&lib->name = dlsym(so, "nbd_" #name);                                    \
	all = all && lib->name;
	NBD_LIB_FUNCTIONS(LOAD)
#undef LOAD
	return all ? 0 : err_set(err, -ENOENT, NAME " is too old");
}
