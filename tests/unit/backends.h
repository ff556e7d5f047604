/* Runs a group of cmocka tests once on each loop backend.  A host that forbids
 * io_uring is reported by name, not passed over in silence.  The test's *state
 * is a fresh loop. */
#ifndef TESTS_UNIT_BACKENDS_H
#define TESTS_UNIT_BACKENDS_H

/* cmocka wants these four before its own header. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/error.h"
#include "base/loop.h"

#include <stdio.h>

static inline int backend_setup(void **state, enum loop_backend backend)
{
	struct loop *loop;
	struct error err;

	if (loop_new(&loop, "test", backend, &err) < 0) {
		print_message("no loop: %s\n", err.text);
		return -1;
	}
	assert_int_equal(loop_backend(loop), backend);
	*state = loop;
	return 0;
}

static inline int setup_uring(void **state)
{
	return backend_setup(state, LOOP_URING);
}

static inline int setup_threads(void **state)
{
	return backend_setup(state, LOOP_THREADS);
}

static inline int teardown_loop(void **state)
{
	loop_free(*state);
	return 0;
}

static inline bool uring_works(void)
{
	struct loop *loop;
	struct error err;

	if (loop_new(&loop, "probe", LOOP_URING, &err) < 0) {
		print_message("[  SKIPPED ] all tests on io_uring: %s\n", err.text);
		return false;
	}
	loop_free(loop);
	return true;
}

#define ON_URING(test)	 cmocka_unit_test_setup_teardown(test, setup_uring, teardown_loop)
#define ON_THREADS(test) cmocka_unit_test_setup_teardown(test, setup_threads, teardown_loop)

/* LIST(X) expands X(test) for each test, with commas. */
#define RUN_ON_BACKENDS(LIST)                                                                      \
	__extension__({                                                                            \
		const struct CMUnitTest on_threads_[] = {LIST(ON_THREADS)};                        \
		const struct CMUnitTest on_uring_[] = {LIST(ON_URING)};                            \
		int failed_;                                                                       \
                                                                                                   \
		/* A failure inside a fiber must not jump off its stack. */                        \
		setenv("CMOCKA_TEST_ABORT", "1", 1);                                               \
		failed_ = cmocka_run_group_tests_name("threads", on_threads_, NULL, NULL);         \
                                                                                                   \
		if (uring_works())                                                                 \
			failed_ += cmocka_run_group_tests_name("io_uring", on_uring_, NULL, NULL); \
		failed_;                                                                           \
	})

#endif
