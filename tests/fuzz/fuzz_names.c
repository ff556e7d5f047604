/* Fuzz target: names of images that are options, as JSON and as lists.  A list that was
 * understood says the same when it is written out and read again. */
#include "tests/fuzz/rig.h"

#include "block/names.h"

static void same(const struct opts *a, const struct opts *b)
{
	if (a->n != b->n)
		abort();
	for (unsigned i = 0; i < a->n; i++)
		if (strcmp(a->v[i].name, b->v[i].name) || strcmp(a->v[i].value, b->v[i].value))
			abort();
}

static void look(const struct opts *o)
{
	struct error err = {0};
	struct opts sub;
	bool flag = false;
	u64 size = 0;

	opts_sub(o, "file.", &sub);
	opts_fini(&sub);
	for (unsigned i = 0; i < o->n; i++) {
		(void)opts_get_bool(o, o->v[i].name, &flag, &err);
		(void)opts_get_size(o, o->v[i].name, 1, &size, &err);
		(void)name_in_keys("driver file. backing.", o->v[i].name);
		(void)is_identifier(o->v[i].name);
	}
}

static void list(const char *text, const char *implied)
{
	struct error err = {0};
	struct opts o, again;
	char *out;

	if (opts_parse(&o, text, implied, &err) < 0) {
		if (!err.text[0])
			abort();
		return;
	}
	look(&o);
	out = opts_text(&o, implied);
	if (opts_parse(&again, out, implied, &err) < 0)
		abort();
	same(&o, &again);
	free(out);
	opts_fini(&o);
	opts_fini(&again);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t bytes)
{
	AUTO_FREE char *text = xalloc(bytes + 6);
	struct error err = {0};
	struct opts o;

	memcpy(text, "json:", 5);
	memcpy(text + 5, data, bytes);
	text[5 + bytes] = 0;
	(void)name_has_protocol(text + 5);
	if (name_parse_json(text, &o, &err) == 0) {
		look(&o);
		opts_fini(&o);
	} else if (!err.text[0]) {
		abort();
	}
	list(text + 5, NULL);
	list(text + 5, "file");
	return 0;
}
