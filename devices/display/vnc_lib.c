/* Loading libvncserver; see vnc_lib.h.  Thread: any. */
#define _GNU_SOURCE
#include "devices/display/vnc_lib.h"

#include <dlfcn.h>
#include <errno.h>

#define NAME "libvncserver.so.1"

int vnc_lib_load(struct vnc_lib *lib, struct error *err)
{
	/* Never closed: libraries that it brings do not survive being loaded twice. */
	void *so = dlopen(NAME, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
	bool all = so;

	if (!so)
		return err_set(err, -ENOENT, "VNC needs " NAME ": %s", dlerror());
#define LOAD(name)                                                                                 \
	*(void **)(void *)&lib->name = dlsym(so, #name);                                           \
	all = all && lib->name;
	VNC_LIB_FUNCTIONS(LOAD)
#undef LOAD
	return all ? 0 : err_set(err, -ENOENT, NAME " is too old");
}
