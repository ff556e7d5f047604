/* What the guests of our own in C have in common: ports, text on COM1, PCI configuration.
 * Multiboot Specification 0.6.96: 32 bits, flat, no library.  guest() does not return. */
#ifndef TESTS_GUEST_TINY_H
#define TESTS_GUEST_TINY_H

#include <stdint.h>

#define BOOT_MAGIC 0x1badb002u
#define COM1	   0x3f8

struct boot_info {
	uint32_t flags, mem_lower, mem_upper, boot_device;
	const char *cmdline;
};

__attribute__((section(".multiboot"), used)) static const uint32_t header[] = {BOOT_MAGIC, 0,
									       0u - BOOT_MAGIC};

#define PORTS(bits, suffix)                                                                        \
	static inline void out##bits(uint16_t port, uint##bits##_t v)                              \
	{                                                                                          \
		__asm__ volatile("out" suffix " %0, %1" : : "a"(v), "Nd"(port) : "memory");        \
	}                                                                                          \
	static inline uint##bits##_t in##bits(uint16_t port)                                       \
	{                                                                                          \
		uint##bits##_t v;                                                                  \
                                                                                                   \
		__asm__ volatile("in" suffix " %1, %0" : "=a"(v) : "Nd"(port) : "memory");         \
		return v;                                                                          \
	}
PORTS(8, "b")
PORTS(16, "w")
PORTS(32, "l")

static inline uint64_t ticks(void)
{
	uint32_t low, high;

	__asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
	return (uint64_t)high << 32 | low;
}

/* --- memory and text -------------------------------------------------------------------- */

void *memcpy(void *to, const void *from, unsigned n);
void *memset(void *to, int c, unsigned n);

void *memcpy(void *to, const void *from, unsigned n)
{
	void *d = to;

	__asm__ volatile("rep movsb" : "+D"(d), "+S"(from), "+c"(n) : : "memory");
	return to;
}

void *memset(void *to, int c, unsigned n)
{
	void *d = to;

	__asm__ volatile("rep stosb" : "+D"(d), "+c"(n) : "a"(c) : "memory");
	return to;
}

static inline void say_char(char c)
{
	while (!(in8(COM1 + 5) & 0x20))
		;
	out8(COM1, (uint8_t)c);
}

static inline void say(const char *text)
{
	while (*text)
		say_char(*text++);
}

static inline void say_hex(uint64_t v, int digits)
{
	while (digits-- > 0)
		say_char("0123456789abcdef"[v >> (4 * digits) & 15]);
}

static inline void say_decimal(uint32_t v)
{
	char text[11];
	int n = 0;

	do
		text[n++] = (char)('0' + v % 10);
	while (v /= 10);
	while (n)
		say_char(text[--n]);
}

static inline uint32_t number_after(const char *text, const char *key)
{
	for (; text && *text; text++) {
		const char *t = text, *k = key;
		uint32_t n = 0;

		while (*k && *t == *k) {
			t++;
			k++;
		}
		if (*k)
			continue;
		while (*t >= '0' && *t <= '9')
			n = n * 10 + (uint32_t)(*t++ - '0');
		return n;
	}
	return 0;
}

/* --- PCI ----------------------------------------------------------------------------------- */

static inline uint32_t config_read(uint8_t devfn, uint8_t off)
{
	out32(0xcf8, 0x80000000u | (uint32_t)devfn << 8 | off);
	return in32(0xcfc);
}

static inline void config_write(uint8_t devfn, uint8_t off, uint32_t v)
{
	out32(0xcf8, 0x80000000u | (uint32_t)devfn << 8 | off);
	out32(0xcfc, v);
}

/* A split virtqueue: virtio 1.2, section 2.7. */
struct vring {
	volatile struct {
		uint64_t addr;
		uint32_t bytes;
		uint16_t flags, next;
	} * desc;
	volatile uint16_t *avail; /* flags, index, entries */
	volatile uint16_t *used;  /* flags, index, entries of two 32-bit words */
	uint16_t next_used;
};

__attribute__((used, noreturn)) static void guest(const struct boot_info *info);

__attribute__((naked, used, noreturn)) void _start(void);
void _start(void)
{
	__asm__("mov $0x90000, %esp\n\t"
		"push %ebx\n\t"
		"call guest\n");
}

#endif
