/* Integers, sizes and small helpers that every file may use.
 *
 * Thread: any.  Nothing here allocates except xnew()/try_alloc() and friends. */
#ifndef BASE_BASE_H
#define BASE_BASE_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int8_t s8;
typedef int16_t s16;
typedef int32_t s32;
typedef int64_t s64;

#define KiB ((u64)1 << 10)
#define MiB ((u64)1 << 20)
#define GiB ((u64)1 << 30)
#define TiB ((u64)1 << 40)

#define NS_PER_SEC 1000000000ll
#define NS_PER_MS  1000000ll

/* Number of elements; does not compile for a pointer. */
#define ARRAY_LEN(a)                                                                               \
	(sizeof(a) / sizeof((a)[0]) +                                                              \
	 0 * sizeof(struct {                                                                       \
		 int not_a_pointer : 1 -                                                           \
			 2 * __builtin_types_compatible_p(__typeof__(a), __typeof__(&(a)[0]));     \
	 }))

/* The struct of TYPE whose MEMBER is at PTR; checks the member's type. */
#define container_of(ptr, type, member)                                                            \
	__extension__({                                                                            \
		const __typeof__(((type *)0)->member) *co_p_ = (ptr);                              \
		(type *)((char *)(uintptr_t)co_p_ - offsetof(type, member));                       \
	})

#define MIN(a, b)                                                                                  \
	__extension__({                                                                            \
		__typeof__(a) min_a_ = (a);                                                        \
		__typeof__(b) min_b_ = (b);                                                        \
		min_a_ < min_b_ ? min_a_ : min_b_;                                                 \
	})
#define MAX(a, b)                                                                                  \
	__extension__({                                                                            \
		__typeof__(a) max_a_ = (a);                                                        \
		__typeof__(b) max_b_ = (b);                                                        \
		max_a_ > max_b_ ? max_a_ : max_b_;                                                 \
	})

#define DIV_ROUND_UP(n, d) (((n) + (d)-1) / (d))

#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))
#define likely(x)	       __builtin_expect(!!(x), 1)
#define unlikely(x)	       __builtin_expect(!!(x), 0)

/* Frees the pointer when the variable goes out of scope (scratch memory). */
#define AUTO_FREE __attribute__((cleanup(auto_free_)))
static inline void auto_free_(void *pp)
{
	free(*(void **)pp);
}

/* align must be a power of two; align_up wraps to 0 only beyond 2^64. */
static inline u64 align_down(u64 x, u64 align)
{
	return x & ~(align - 1);
}

static inline u64 align_up(u64 x, u64 align)
{
	return (x + align - 1) & ~(align - 1);
}

static inline bool is_aligned(u64 x, u64 align)
{
	return (x & (align - 1)) == 0;
}

static inline bool is_pow2(u64 x)
{
	return x && !(x & (x - 1));
}

/* Checked arithmetic: false when the result does not fit. */
static inline bool add_ok(u64 a, u64 b, u64 *out)
{
	return !__builtin_add_overflow(a, b, out);
}

static inline bool mul_ok(u64 a, u64 b, u64 *out)
{
	return !__builtin_mul_overflow(a, b, out);
}

/* Zeroed memory for our own small fixed sizes: never NULL, aborts instead. */
void *xalloc(size_t bytes);
void *xrealloc(void *p, size_t bytes);
char *xstrdup(const char *s);
char *xasprintf(const char *fmt, ...) PRINTF_LIKE(1, 2);
#define xnew(type)	((type *)xalloc(sizeof(type)))
#define xnew_n(type, n) ((type *)xalloc_n((n), sizeof(type)))
void *xalloc_n(size_t n, size_t bytes_each);

/* Zeroed memory for sizes that come from guest, image or user: NULL when it is
 * not to be had.  align is 0 or a power of two >= sizeof(void *).  Release with
 * free().  Every call goes through the fault hook below. */
void *try_alloc(size_t bytes);
void *try_alloc_aligned(size_t bytes, size_t align);

/* Test hook: make the Nth try_alloc from now (1 = next) of this thread fail; 0 switches off. */
void try_alloc_fail_nth(unsigned n);

#endif
