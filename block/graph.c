/* Images of a chain: which is which, how they name one another; see graph.h.
 * Thread: the images' loop. */
#include "block/graph.h"

#include "block/driver.h"

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

void image_node_name(const struct image *img, char name[NODE_NAME_ROOM])
{
	/* The reference numbers its nodes; any number that stays will do. */
	u64 number = (u64)(uintptr_t)img * 0x9e3779b97f4a7c15ull >> 40;

	if (img->node_name)
		snprintf(name, NODE_NAME_ROOM, "%s", img->node_name);
	else
		snprintf(name, NODE_NAME_ROOM, "#block%03u", (unsigned)(number % 100000));
}

char *image_cache_words(enum cache_mode mode, bool write_cache)
{
	bool direct = mode == CACHE_NONE || mode == CACHE_DIRECTSYNC;

	return xasprintf("%s%s%s", write_cache ? "writeback" : "writethrough",
			 direct ? ", direct" : "", mode == CACHE_UNSAFE ? ", ignore flushes" : "");
}

const char *image_host_name(const struct image *img)
{
	while (img->below)
		img = img->below;
	return img->name;
}

static bool is_same_file(const char *a, const char *b)
{
	struct stat x, y;

	return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

/* --- finding --------------------------------------------------------------------- */

bool image_has_name(const struct image *img, const struct image *over, const char *name)
{
	AUTO_FREE char *path = over ? image_resolve_name(image_host_name(over), name) : NULL;

	if (over && over->backing_name && !strcmp(over->backing_name, name))
		return true;
	if (!strcmp(img->name, name) || (path && !strcmp(img->name, path)))
		return true;
	return is_same_file(path ? path : name, image_host_name(img));
}

struct image *image_find_over(struct image *top, const char *name)
{
	/* As people see them from where they are, too. */
	for (struct image *img = top; img->backing; img = img->backing)
		if (image_has_name(img->backing, img, name))
			return img;
	for (struct image *img = top; img->backing; img = img->backing)
		if (image_has_name(img->backing, NULL, name))
			return img;
	return NULL;
}

/* --- names ------------------------------------------------------------------------- */

static const char *after_slash(const char *file)
{
	const char *slash = strrchr(file, '/');

	return slash ? slash + 1 : file;
}

static bool has_folder(const char *file)
{
	AUTO_FREE char *folder = xstrdup(file);
	char *slash = strrchr(folder, '/');

	if (slash)
		slash[1] = 0;
	return !slash || access(folder, F_OK) == 0;
}

char *image_backing_name(const struct image *backing, const char *file)
{
	AUTO_FREE char *seen = image_resolve_name(file, backing->name);
	AUTO_FREE char *seen_here = NULL;
	const char *host = image_host_name(backing);
	char *path;

	if (!strcmp(seen, backing->name) || is_same_file(seen, host) || !has_folder(file))
		return xstrdup(backing->name);
	seen_here = image_resolve_name(file, after_slash(host));
	if (is_same_file(seen_here, host))
		return xstrdup(after_slash(host));
	path = realpath(host, NULL);
	return path ? path : xstrdup(backing->name);
}

/* --- changing ------------------------------------------------------------------------ */

int image_cut_chain(struct fiber *f, struct image *over, struct image *base)
{
	struct image *gone = over->backing, *last = over;

	if (gone == base)
		return 0;
	while (last->backing != base)
		last = last->backing;
	image_set_backing(last, NULL);
	image_set_backing(over, base);
	return image_close(f, gone);
}
