/* Configuration files: sections of `key = "value"`, each as one option.
 *
 *	[drive "disk"]
 *	  file = "disk.qcow2"
 *	  if = "virtio"
 *
 * is -drive id=disk,file=disk.qcow2,if=virtio.  Lines starting with # are
 * comments.  Messages name file and line of the section. */
#include "vmm/options.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>

#define LINE_BYTES_MAX 4096

struct reader {
	struct config *config;
	const char *path;
	unsigned line, section_line;
	const struct option *option; /* of the open section; NULL: none */
	struct opts opts;
};

/* Sections whose name is not that of the option. */
static const struct {
	const char *section, *option;
} other_names[] = {
	{"memory", "m"}, {"smp-opts", "smp"}, {"boot-opts", "boot"}, {"action", "action"}};

static char *trim(char *s)
{
	size_t len;

	while (isspace((unsigned char)*s))
		s++;
	len = strlen(s);
	while (len && isspace((unsigned char)s[len - 1]))
		s[--len] = 0;
	return s;
}

static int apply_section(struct reader *r, struct error *err)
{
	AUTO_FREE char *source = xasprintf("%s:%u", r->path, r->section_line);
	int ret = 0;

	if (r->option && option_apply_opts(r->config, r->option, source, &r->opts, err) < 0)
		ret = err_prefix(err, "%s: [%s]", source, r->option->name);
	opts_fini(&r->opts);
	r->option = NULL;
	return ret;
}

static const struct option *find_section(const char *name)
{
	const struct option *o;

	for (unsigned i = 0; i < ARRAY_LEN(other_names); i++)
		if (!strcmp(name, other_names[i].section))
			name = other_names[i].option;
	o = option_find(name);
	return o && o->implied ? o : NULL;
}

/* [name] or [name "id"] */
static int open_section(struct reader *r, char *text, struct error *err)
{
	char *end = strrchr(text, ']'), *id, *close;
	int ret = apply_section(r, err);

	if (ret < 0)
		return ret;
	if (!end || end[1])
		return err_set(err, -EINVAL, "%s:%u: expected ']' at the end", r->path, r->line);
	*end = 0;
	id = strchr(++text, '"');
	if (id) {
		close = strchr(id + 1, '"');
		if (!close || *trim(close + 1))
			return err_set(err, -EINVAL, "%s:%u: expected '\"' after the id", r->path,
				       r->line);
		*close = *id++ = 0;
	}
	text = trim(text);
	r->option = find_section(text);
	if (!r->option)
		return err_set(err, -EINVAL, "%s:%u: there is no group '%s'", r->path, r->line,
			       text);
	r->section_line = r->line;
	if (id)
		opts_add(&r->opts, "id", id, false);
	return 0;
}

static int add_key(struct reader *r, char *text, struct error *err)
{
	char *equals = strchr(text, '='), *value, *end;

	if (!equals)
		return err_set(err, -EINVAL, "%s:%u: parse error: expected key = \"value\"",
			       r->path, r->line);
	if (!r->option)
		return err_set(err, -EINVAL, "%s:%u: no group defined", r->path, r->line);
	*equals = 0;
	value = trim(equals + 1);
	if (*value == '"') {
		end = strrchr(++value, '"');
		if (!end || end[1])
			return err_set(err, -EINVAL, "%s:%u: expected '\"' at the end", r->path,
				       r->line);
		*end = 0;
	}
	opts_add(&r->opts, trim(text), value, false);
	return 0;
}

static int read_line(struct reader *r, char *text, struct error *err)
{
	text = trim(text);
	if (!*text || *text == '#')
		return 0;
	return *text == '[' ? open_section(r, text, err) : add_key(r, text, err);
}

int config_read_file(struct config *c, const char *path, struct error *err)
{
	struct reader r = {.config = c, .path = path};
	char line[LINE_BYTES_MAX], buffer[LINE_BYTES_MAX];
	FILE *from = fopen(path, "re");
	int ret = 0;

	if (!from)
		return err_set_errno(err, -errno, "Could not open '%s'", path);
	setvbuf(from, buffer, _IOFBF, sizeof(buffer));
	while (ret == 0 && fgets(line, sizeof(line), from)) {
		r.line++;
		if (!strchr(line, '\n') && !feof(from))
			ret = err_set(err, -EINVAL, "%s:%u: line is too long", path, r.line);
		else
			ret = read_line(&r, line, err);
	}
	if (ret == 0 && ferror(from))
		ret = err_set(err, -EIO, "Could not read '%s'", path);
	if (ret == 0)
		ret = apply_section(&r, err);
	opts_fini(&r.opts);
	fclose(from);
	explicit_bzero(line, sizeof(line)); /* [object] may have held a passphrase */
	explicit_bzero(buffer, sizeof(buffer));
	return ret;
}
