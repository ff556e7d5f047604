/* The human monitor's language: one line in, one command out.
 *
 * A row's argument words (see internal.h) drive parsing, so that every command
 * reports missing, unknown and extra words alike. */
#include "monitor/internal.h"

#include "base/opts.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>

struct parse {
	struct cmd_ctx *ctx;
	const char *name; /* for messages: "info block" */
	const char *at;
	char *text; /* storage of text arguments, as long as the line */
	struct cmd_args args;
	unsigned position;
};

static void skip_space(const char **at)
{
	while (isspace((unsigned char)**at))
		++*at;
}

/* One name of "stop|s" equals the given bytes. */
static bool name_is(const char *names, const char *name, size_t bytes)
{
	for (;;) {
		size_t n = strcspn(names, "|");

		if (n == bytes && !memcmp(names, name, n))
			return true;
		if (!names[n])
			return false;
		names += n + 1;
	}
}

const struct cmd *cmd_find(const struct cmd *table, const char *name, size_t bytes)
{
	for (; table->name; table++)
		if (name_is(table->name, name, bytes))
			return table;
	return NULL;
}

static int parse_format(struct parse *p, struct error *err)
{
	struct value_format *f = &p->args.format;
	char *end;

	f->count = 1;
	if (*p->at != '/')
		return 0;
	p->at++;
	if (isdigit((unsigned char)*p->at)) {
		unsigned long n = strtoul(p->at, &end, 10);

		if (n > 1u << 20)
			return err_set(err, -EINVAL, "count %lu is too large, at most %u", n,
				       1u << 20);
		f->count = (u32)n;
		p->at = end;
	}
	for (; *p->at && !isspace((unsigned char)*p->at); p->at++) {
		static const char sizes[] = "bhwg";
		const char *size = strchr(sizes, *p->at);

		if (size)
			f->bytes = (u8)(1u << (size - sizes));
		else if (strchr("xduoci", *p->at))
			f->digits = *p->at;
		else
			return err_set(err, -EINVAL, "invalid char in format: '%c'", *p->at);
	}
	return 0;
}

static int parse_flag(struct parse *p, const char *word, struct error *err)
{
	if (p->at[0] != '-' || !isalpha((unsigned char)p->at[1]) ||
	    (p->at[2] && !isspace((unsigned char)p->at[2])))
		return 0;
	if (p->at[1] != word[1])
		return 0; /* another flag's turn, or a word */
	p->args.flags |= 1u << (word[1] - 'a');
	p->at += 2;
	return 0;
}

static int parse_text(struct parse *p, bool rest, struct error *err)
{
	char *out = p->text;
	char quote = 0;

	p->args.text[p->position] = out;
	if (*p->at == '"' && !rest)
		quote = *p->at++;
	while (*p->at &&
	       (rest || quote ? *p->at != quote || !quote : !isspace((unsigned char)*p->at))) {
		if (quote && *p->at == '\\' && p->at[1])
			p->at++;
		*out++ = *p->at++;
	}
	if (quote && *p->at != quote)
		return err_set(err, -EINVAL, "unterminated string");
	if (quote)
		p->at++;
	*out++ = 0;
	p->text = out;
	return 0;
}

/* Bytes; MiB without a suffix. */
static int parse_mib(struct parse *p, struct error *err)
{
	char word[32];
	size_t n = strcspn(p->at, " \t");
	int ret = -EINVAL;

	if (n && n < sizeof(word)) {
		memcpy(word, p->at, n);
		word[n] = 0;
		ret = parse_size(word, MiB, &p->args.number[p->position]);
	}
	p->at += n;
	p->position++;
	return ret < 0 ? err_set(err, -EINVAL, "invalid size") : 0;
}

static const char *what_is_missing(char type)
{
	switch (type) {
	case 'B': return "block device name";
	case 'F': return "filename";
	default: return "string";
	}
}

/* "-f text", a position of its own. */
static int parse_flag_text(struct parse *p, const char *word, struct error *err)
{
	unsigned position = p->position;
	int ret = 0;

	assert(position < CMD_ARGS);
	if (p->at[0] == '-' && p->at[1] == word[1] &&
	    (!p->at[2] || isspace((unsigned char)p->at[2]))) {
		p->at += 2;
		skip_space(&p->at);
		if (!*p->at)
			return err_set(err, -EINVAL, "%s: string expected", p->name);
		ret = parse_text(p, false, err);
		p->args.given[position] = true;
	}
	p->position++;
	return ret;
}

static int parse_word(struct parse *p, const char *word, struct error *err)
{
	bool optional = word[1] == '?';

	skip_space(&p->at);
	if (word[0] == '-' && word[2] == 's')
		return parse_flag_text(p, word, err);
	if (word[0] == '-')
		return parse_flag(p, word, err);
	if (word[0] == '/')
		return parse_format(p, err);
	if (p->at[0] == '-' && isalpha((unsigned char)p->at[1]) && !strchr("ro", word[0]) &&
	    (!p->at[2] || isspace((unsigned char)p->at[2])))
		return err_set(err, -EINVAL, "%s: unsupported option -%c", p->name, p->at[1]);
	if (!*p->at && optional) {
		p->position++;
		return 0;
	}
	if (!*p->at && word[0] != 'l' && word[0] != 'o')
		return err_set(err, -EINVAL, "%s: %s expected", p->name, what_is_missing(word[0]));
	assert(p->position < CMD_ARGS);
	p->args.given[p->position] = true;
	if (word[0] == 'l') {
		int ret = expr_eval(p->ctx->vm, *p->ctx->cpu, &p->at, &p->args.number[p->position],
				    err);

		p->position++;
		return ret;
	}
	if (word[0] == 'o')
		return parse_mib(p, err);
	int ret = parse_text(p, word[0] == 'r', err);

	p->position++;
	return ret;
}

static int parse_line(struct parse *p, const struct cmd *cmd, struct error *err)
{
	const char *word = cmd->args;

	while (*word) {
		size_t n = strcspn(word, " ");
		char one[8];
		int ret;

		assert(n < sizeof(one));
		memcpy(one, word, n);
		one[n] = 0;
		ret = parse_word(p, one, err);
		if (ret < 0)
			return ret;
		word += n + (word[n] == ' ');
	}
	skip_space(&p->at);
	if (p->at[0] == '-' && isalpha((unsigned char)p->at[1]) && p->position == 0)
		return err_set(err, -EINVAL, "%s: unsupported option -%c", p->name, p->at[1]);
	if (*p->at)
		return err_set(err, -EINVAL, "%s: extraneous characters at the end of line",
			       p->name);
	return 0;
}

static void run_command(struct cmd_ctx *ctx, const struct cmd *cmd, const char *prefix,
			const char *rest)
{
	AUTO_FREE char *name = xasprintf("%s%s", prefix, cmd->name);
	AUTO_FREE char *text = xalloc(2 * strlen(rest) + CMD_ARGS + 1);
	struct parse p = {.ctx = ctx, .name = name, .at = rest, .text = text};
	struct error err = {0};

	if (parse_line(&p, cmd, &err) < 0) {
		print_to(ctx->out, "%s\nTry \"help %s%.*s\" for more information\n", err.text,
			 prefix, (int)strcspn(cmd->name, "|"), cmd->name);
		return;
	}
	if (cmd->run(ctx, &p.args, &err) < 0)
		print_to(ctx->out, "Error: %s\n", err.text);
}

void hmp_run_line(struct cmd_ctx *ctx, const char *line)
{
	const struct cmd *cmd, *sub;
	const char *name, *rest;
	size_t n;

	skip_space(&line);
	if (!*line || *line == '#')
		return;
	name = line;
	n = strcspn(line, " \t/");
	cmd = cmd_find(hmp_commands, name, n);
	if (!cmd) {
		print_to(ctx->out, "unknown command: '%.*s'\n", (int)n, name);
		return;
	}
	rest = line + n;
	skip_space(&rest);
	if (!cmd->sub) {
		run_command(ctx, cmd, "", rest);
		return;
	}
	n = strcspn(rest, " \t");
	if (!n) {
		cmd_print_help(ctx, "info ", cmd->sub, NULL);
		return;
	}
	sub = cmd_find(cmd->sub, rest, n);
	if (!sub) {
		print_to(ctx->out, "unknown command: '%s %.*s'\n", cmd->name, (int)n, rest);
		return;
	}
	run_command(ctx, sub, "info ", rest + n);
}

static void print_row(struct cmd_ctx *ctx, const char *prefix, const struct cmd *cmd)
{
	print_to(ctx->out, "%s%s %s -- %s\n", prefix, cmd->name, cmd->params, cmd->help);
}

void cmd_print_help(struct cmd_ctx *ctx, const char *prefix, const struct cmd *table,
		    const char *name)
{
	const struct cmd *cmd;
	size_t n;

	if (!name) {
		for (cmd = table; cmd->name; cmd++)
			print_row(ctx, prefix, cmd);
		return;
	}
	n = strcspn(name, " \t");
	cmd = cmd_find(table, name, n);
	if (!cmd) {
		print_to(ctx->out, "unknown command: '%s%.*s'\n", prefix, (int)n, name);
		return;
	}
	name += n;
	skip_space(&name);
	if (cmd->sub)
		cmd_print_help(ctx, "info ", cmd->sub, *name ? name : NULL);
	else
		print_row(ctx, prefix, cmd);
}
