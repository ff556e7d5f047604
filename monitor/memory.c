/* Commands that look at memory, ports and values: x xp p i o sum memsave.
 * Output has the reference's shape: scripts parse it. */
#include "base/io.h"
#include "monitor/internal.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>

static void print_char(struct printer *out, u64 value)
{
	u8 c = (u8)value;

	if (c == '\'' || c == '\\')
		print_to(out, "'\\%c'", c);
	else if (c == '\n' || c == '\r')
		print_to(out, c == '\n' ? "'\\n'" : "'\\r'");
	else if (c < 0x80 && isprint(c))
		print_to(out, "'%c'", c);
	else
		print_to(out, "'\\x%02x'", c);
}

static void print_value(struct printer *out, char digits, unsigned bytes, u64 value)
{
	static const u8 octal_width[] = {[1] = 3, [2] = 6, [4] = 11, [8] = 22};
	static const u8 decimal_width[] = {[1] = 3, [2] = 5, [4] = 10, [8] = 20};
	unsigned shift = 64 - 8 * bytes;

	switch (digits) {
	case 'o':
		print_to(out, "%#0*llo", octal_width[bytes] + 1, (unsigned long long)value);
		break;
	case 'x': print_to(out, "0x%0*llx", 2 * (int)bytes, (unsigned long long)value); break;
	case 'u': print_to(out, "%*llu", decimal_width[bytes], (unsigned long long)value); break;
	case 'd':
		print_to(out, "%*lld", decimal_width[bytes],
			 (long long)((s64)(value << shift) >> shift));
		break;
	case 'c': print_char(out, value); break;
	default: assert(false);
	}
}

static u64 load_le(const u8 *p, unsigned bytes)
{
	u64 value = 0;

	for (unsigned i = 0; i < bytes; i++)
		value |= (u64)p[i] << 8 * i;
	return value;
}

static int read_memory(struct cmd_ctx *ctx, bool physical, u64 addr, void *buf, size_t bytes,
		       struct error *err)
{
	if (physical)
		return vm_read_physical(ctx->vm, addr, buf, bytes, err);
	return vm_read_virtual(ctx->vm, *ctx->cpu, addr, buf, bytes, err);
}

static int dump(struct cmd_ctx *ctx, const struct cmd_args *a, bool physical, struct error *err)
{
	char digits = a->format.digits ? a->format.digits : 'x';
	unsigned bytes = a->format.bytes ? a->format.bytes : digits == 'c' ? 1 : 4;
	unsigned line = bytes == 1 && digits != 'c' ? 8 : 16;
	u64 addr = a->number[0], left;
	u8 buf[16];

	if (digits == 'i')
		return err_set(err, -ENOTSUP,
			       "format 'i' needs a disassembler, which is not built in: use /xb");
	left = (u64)a->format.count * bytes;
	while (left) {
		unsigned n = (unsigned)MIN(left, (u64)line);

		print_to(ctx->out, "%016llx:", (unsigned long long)addr);
		if (read_memory(ctx, physical, addr, buf, n, err) < 0) {
			print_to(ctx->out, " Cannot access memory\n");
			return 0;
		}
		for (unsigned i = 0; i < n; i += bytes) {
			print_to(ctx->out, " ");
			print_value(ctx->out, digits, bytes, load_le(buf + i, bytes));
		}
		print_to(ctx->out, "\n");
		addr += n;
		left -= n;
	}
	return 0;
}

int cmd_x(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	return dump(ctx, a, false, err);
}

int cmd_xp(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	return dump(ctx, a, true, err);
}

int cmd_print(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	unsigned long long value = a->number[0];

	switch (a->format.digits) {
	case 'o': print_to(ctx->out, "%#llo", value); break;
	case 'u': print_to(ctx->out, "%llu", value); break;
	case 'd': print_to(ctx->out, "%lld", (long long)value); break;
	case 'c': print_char(ctx->out, value); break;
	case 'i':
	default: print_to(ctx->out, "%#llx", value); break;
	}
	print_to(ctx->out, "\n");
	return 0;
}

static unsigned port_bytes(const struct cmd_args *a)
{
	return a->format.bytes ? MIN(a->format.bytes, (u8)4) : 1;
}

static int check_port(u64 port, struct error *err)
{
	if (port > 0xffff)
		return err_set(err, -EINVAL, "port 0x%llx is out of range, expected 0..0xffff",
			       (unsigned long long)port);
	return 0;
}

int cmd_in(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	unsigned bytes = a->format.bytes ? port_bytes(a) : 4;
	u32 value;
	int ret = check_port(a->number[0], err);

	if (ret == 0)
		ret = vm_port_read(ctx->vm, (u16)a->number[0], bytes, &value, err);
	if (ret < 0)
		return ret;
	print_to(ctx->out, "port%c[0x%04x] = 0x%0*x\n", "?bw?l"[bytes], (u16)a -> number[0],
		 2 * (int)bytes, value);
	return 0;
}

int cmd_out(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	unsigned bytes = a->format.bytes ? port_bytes(a) : 4;
	int ret = check_port(a->number[0], err);

	if (ret < 0)
		return ret;
	return vm_port_write(ctx->vm, (u16)a->number[0], bytes, (u32)a->number[1], err);
}

/* The checksum of System V's and BSD's sum(1), as the reference computes it. */
int cmd_sum(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	u64 addr = a->number[0], left = a->number[1];
	u8 buf[4096];
	u16 sum = 0;

	while (left) {
		size_t n = (size_t)MIN(left, (u64)sizeof(buf));
		int ret = vm_read_physical(ctx->vm, addr, buf, n, err);

		if (ret < 0)
			return ret;
		for (size_t i = 0; i < n; i++)
			sum = (u16)((sum >> 1 | sum << 15) + buf[i]);
		addr += n;
		left -= n;
	}
	print_to(ctx->out, "%05d\n", sum);
	return 0;
}

int cmd_gva2gpa(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	u64 gpa;

	if (vm_translate(ctx->vm, *ctx->cpu, a->number[0], &gpa, err) < 0)
		print_to(ctx->out, "Unmapped\n");
	else
		print_to(ctx->out, "gpa: %#llx\n", (unsigned long long)gpa);
	return 0;
}

static int save(struct cmd_ctx *ctx, const struct cmd_args *a, bool physical, struct error *err)
{
	u64 addr = a->number[0], left = a->number[1];
	u8 buf[4096];
	int fd = sys_open(a->text[2], O_WRONLY | O_CREAT | O_TRUNC, 0666), ret = 0;

	if (fd < 0)
		return err_set_errno(err, fd, "Could not open '%s'", a->text[2]);
	while (left && ret == 0) {
		size_t n = (size_t)MIN(left, (u64)sizeof(buf));

		ret = read_memory(ctx, physical, addr, buf, n, err);
		if (ret < 0)
			break;
		ret = sys_write_all(fd, buf, n);
		if (ret < 0)
			err_set_errno(err, ret, "Could not write '%s'", a->text[2]);
		addr += n;
		left -= n;
	}
	sys_close(fd);
	return ret;
}

int cmd_memsave(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	return save(ctx, a, false, err);
}

int cmd_pmemsave(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	return save(ctx, a, true, err);
}
