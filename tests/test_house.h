/* test_house.h: what keeps the source tree in order: every header compiles alone, dependencies go one way, and the Makefile's
   help names every target. */
#ifndef TESTS_TEST_HOUSE_H
#define TESTS_TEST_HOUSE_H

#include "harness.h"

#define HOUSE_TESTS(TEST)
#endif
