/* What the bindings of TensorRT link, so that they can be imported without its libraries (2 GB) and
 * without a GPU. Nothing here is ever called. */
void createInferBuilder_INTERNAL(void) {}
void createInferRefitter_INTERNAL(void) {}
void createInferRuntime_INTERNAL(void) {}
void createNvOnnxParser_INTERNAL(void) {}
void createNvOnnxParserRefitter_INTERNAL(void) {}
void getBuilderPluginRegistry(void) {}
void getPluginRegistry(void) {}
void initLibNvInferPlugins(void) {}
int getInferLibVersion(void) { return 0; }
int getNvOnnxParserVersion(void) { return 0; }
