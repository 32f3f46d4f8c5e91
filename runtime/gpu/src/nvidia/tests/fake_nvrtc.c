// A compiler that has a version and compiles nothing, for tests. What it is made with (-D) decides what goes wrong:
// VERSION_STATUS, TARGETS_STATUS, CREATE_STATUS  what nvrtcVersion, nvrtcGetSupportedArchs and nvrtcCreateProgram
// return WITHOUT_CUBIN  leaves out nvrtcGetCUBIN, as before CUDA 11.1
#ifndef VERSION_STATUS
#define VERSION_STATUS 0
#endif
#ifndef TARGETS_STATUS
#define TARGETS_STATUS 0
#endif
#ifndef CREATE_STATUS
#define CREATE_STATUS 4
#endif

const char *nvrtcGetErrorString(int status) { return status == 4 ? "NVRTC_ERROR_INVALID_PROGRAM" : 0; }
int nvrtcVersion(int *major, int *minor) { *major = 13; *minor = 0; return VERSION_STATUS; }
int nvrtcGetNumSupportedArchs(int *count) { *count = 2; return 0; }
int nvrtcGetSupportedArchs(int *targets) { targets[0] = 80; targets[1] = 90; return TARGETS_STATUS; }
int nvrtcCreateProgram(void **program) { *program = 0; return CREATE_STATUS; }
int nvrtcDestroyProgram(void **program) { *program = 0; return 0; }
int nvrtcCompileProgram(void *program) { return program ? 0 : 4; }
int nvrtcGetProgramLogSize(void *program) { return program ? 0 : 4; }
int nvrtcGetProgramLog(void *program) { return program ? 0 : 4; }
int nvrtcGetCUBINSize(void *program) { return program ? 0 : 4; }
#ifndef WITHOUT_CUBIN
int nvrtcGetCUBIN(void *program) { return program ? 0 : 4; }
#endif
