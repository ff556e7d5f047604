/* Expressions of monitor commands: "0x100+$eip*2".
 * 64-bit, wrapping, as the reference's monitor evaluates them. */
#include "monitor/internal.h"

#include <ctype.h>
#include <errno.h>

#define EXPR_DEPTH 64

struct expr {
	struct vm *vm;
	u32 cpu;
	const char *at;
	struct error *err;
	unsigned depth;
};

static int expr_sum(struct expr *e, u64 *value);

static void skip_space(struct expr *e)
{
	while (isspace((unsigned char)*e->at))
		e->at++;
}

static void next(struct expr *e)
{
	e->at++;
	skip_space(e);
}

static int expr_number(struct expr *e, u64 *value)
{
	char *end;

	errno = 0;
	*value = strtoull(e->at, &end, 0);
	if (errno == ERANGE)
		return err_set(e->err, -EINVAL, "number too large");
	if (end == e->at)
		return err_set(e->err, -EINVAL, "invalid char '%c' in expression", *e->at);
	e->at = end;
	skip_space(e);
	return 0;
}

static int expr_register(struct expr *e, u64 *value)
{
	char name[32];
	size_t n = 0;

	e->at++;
	while ((isalnum((unsigned char)*e->at) || *e->at == '_' || *e->at == '.') &&
	       n < sizeof(name) - 1)
		name[n++] = *e->at++;
	name[n] = 0;
	skip_space(e);
	if (vm_register(e->vm, e->cpu, name, value) < 0)
		return err_set(e->err, -EINVAL, "unknown register");
	return 0;
}

static int expr_char(struct expr *e, u64 *value)
{
	if (!e->at[1] || e->at[2] != '\'')
		return err_set(e->err, -EINVAL, "missing terminating ' character");
	*value = (u8)e->at[1];
	e->at += 3;
	skip_space(e);
	return 0;
}

static int expr_parenthesis(struct expr *e, u64 *value)
{
	int ret;

	next(e);
	ret = expr_sum(e, value);
	if (ret < 0)
		return ret;
	if (*e->at != ')')
		return err_set(e->err, -EINVAL, "')' expected");
	next(e);
	return 0;
}

static int expr_unary(struct expr *e, u64 *value)
{
	char op = *e->at;
	int ret;

	if (op == '+' || op == '-' || op == '~') {
		if (++e->depth > EXPR_DEPTH)
			return err_set(e->err, -EINVAL, "expression nested too deeply");
		next(e);
		ret = expr_unary(e, value);
		e->depth--;
		*value = op == '-' ? -*value : op == '~' ? ~*value : *value;
		return ret;
	}
	switch (op) {
	case '(': return expr_parenthesis(e, value);
	case '\'': return expr_char(e, value);
	case '$': return expr_register(e, value);
	case '\0': return err_set(e->err, -EINVAL, "unexpected end of expression");
	default: return expr_number(e, value);
	}
}

static int expr_product(struct expr *e, u64 *value)
{
	int ret = expr_unary(e, value);
	u64 right = 0;
	char op;

	while (ret == 0 && *e->at && strchr("*/%", op = *e->at)) {
		next(e);
		ret = expr_unary(e, &right);
		if (ret < 0)
			return ret;
		if (op != '*' && !right)
			return err_set(e->err, -EINVAL, "division by zero");
		*value = op == '*' ? *value * right : op == '/' ? *value / right : *value % right;
	}
	return ret;
}

static int expr_logic(struct expr *e, u64 *value)
{
	int ret = expr_product(e, value);
	u64 right = 0;
	char op;

	while (ret == 0 && *e->at && strchr("&|^", op = *e->at)) {
		next(e);
		ret = expr_product(e, &right);
		*value = op == '&' ? *value & right : op == '|' ? *value | right : *value ^ right;
	}
	return ret;
}

static int expr_sum(struct expr *e, u64 *value)
{
	u64 right = 0;
	char op;
	int ret;

	if (++e->depth > EXPR_DEPTH)
		return err_set(e->err, -EINVAL, "expression nested too deeply");
	ret = expr_logic(e, value);
	while (ret == 0 && ((op = *e->at) == '+' || op == '-')) {
		next(e);
		ret = expr_logic(e, &right);
		*value = op == '+' ? *value + right : *value - right;
	}
	e->depth--;
	return ret;
}

int expr_eval(struct vm *vm, u32 cpu, const char **text, u64 *value, struct error *err)
{
	struct expr e = {.vm = vm, .cpu = cpu, .at = *text, .err = err};
	int ret;

	*value = 0;
	skip_space(&e);
	ret = expr_sum(&e, value);
	*text = e.at;
	return ret;
}
