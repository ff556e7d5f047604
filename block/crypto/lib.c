/* Loading libcrypto; see lib.h.  Thread: any. */
#define _GNU_SOURCE
#include "block/crypto/lib.h"

#include "base/base.h"
#include "base/log.h"

#include <dlfcn.h>

#define NAME "libcrypto.so.3"

static struct crypto_lib *load(void)
{
	/* Never closed: it has things to do at the end of the program. */
	void *so = dlopen(NAME, RTLD_LAZY | RTLD_LOCAL | RTLD_NODELETE);
	struct crypto_lib *lib = xnew(struct crypto_lib);
	bool all = so;

#define LOAD(name) all = all && (*(void **)(void *)&lib->name = dlsym(so, #name));
	CRYPTO_LIB_FUNCTIONS(LOAD)
#undef LOAD
	if (all)
		return lib;
	log_error("encryption needs " NAME ": %s", dlerror());
	exit(1);
}

const struct crypto_lib *crypto_lib(void)
{
	static struct crypto_lib *loaded; /* [atomic] set once, by whoever comes first */
	struct crypto_lib *lib = __atomic_load_n(&loaded, __ATOMIC_ACQUIRE), *none = NULL;

	if (likely(lib))
		return lib;
	lib = load();
	if (__atomic_compare_exchange_n(&loaded, &none, lib, false, __ATOMIC_ACQ_REL,
					__ATOMIC_ACQUIRE))
		return lib;
	free(lib);
	return none;
}
