# What find_package(Slicer) gives an extension, as far as extensions of Python modules need it: the variables and
# macros of Slicer 5.12 with its checks, its copies into the build tree and its install rules. Written for the tests.
set(Slicer_USE_FILE "${CMAKE_CURRENT_LIST_DIR}/UseSlicer.cmake")
set(Slicer_EXTENSION_GENERATE_CONFIG "${CMAKE_CURRENT_LIST_DIR}/ExtensionGenerateConfig.cmake")
set(Slicer_EXTENSION_CPACK "${CMAKE_CURRENT_LIST_DIR}/ExtensionCPack.cmake")
set(Slicer_LICENSE_FILE "${CMAKE_CURRENT_LIST_FILE}")
set(Slicer_README_FILE "${CMAKE_CURRENT_LIST_FILE}")
set(Slicer_LAUNCHER_EXECUTABLE "${CMAKE_COMMAND}")
set(Slicer_USE_PYTHONQT ON)
set(Slicer_QTSCRIPTEDMODULES_LIB_DIR "lib/Slicer-5.12/qt-scripted-modules")
