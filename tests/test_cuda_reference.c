/* The float64 references that the tests of the GPU's kernels call: laser.h's naive twins, compiled as C. */
#define LASER_IMPLEMENTATION
#include "../laser.h"
