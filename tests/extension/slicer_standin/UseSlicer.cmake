set(EXTENSION_NAME "${PROJECT_NAME}")
set(Slicer_INSTALL_ROOT "./")
set(Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR "${Slicer_INSTALL_ROOT}${Slicer_QTSCRIPTEDMODULES_LIB_DIR}")
set(EXTENSION_LICENSE_FILE "${Slicer_LICENSE_FILE}")  # Slicer 5.0 sets them always, later ones only where unset
set(EXTENSION_README_FILE "${Slicer_README_FILE}")
option(BUILD_TESTING "Test the project" ON)
if(BUILD_TESTING)
  enable_testing()
endif()

# Copies every listed file into the module folder of the build tree and installs that folder, as Slicer does: what
# else lies in that folder of the build tree is installed with it.
macro(slicerMacroBuildScriptedModule)
  cmake_parse_arguments(MODULE "WITH_GENERIC_TESTS;WITH_SUBDIR;VERBOSE" "NAME" "SCRIPTS;RESOURCES" ${ARGN})
  if(MODULE_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "unknown arguments of slicerMacroBuildScriptedModule: ${MODULE_UNPARSED_ARGUMENTS}")
  endif()
  if(NOT MODULE_NAME)
    message(FATAL_ERROR "slicerMacroBuildScriptedModule needs NAME")
  endif()
  set(module_folder "${CMAKE_BINARY_DIR}/${Slicer_QTSCRIPTEDMODULES_LIB_DIR}")
  set(module_copies)
  foreach(listed IN LISTS MODULE_SCRIPTS MODULE_RESOURCES)
    if(NOT EXISTS "${CMAKE_CURRENT_SOURCE_DIR}/${listed}")
      message(FATAL_ERROR "slicerMacroBuildScriptedModule: there is no file '${listed}'")
    endif()
    add_custom_command(OUTPUT "${module_folder}/${listed}"
      COMMAND ${CMAKE_COMMAND} -E copy "${CMAKE_CURRENT_SOURCE_DIR}/${listed}" "${module_folder}/${listed}"
      DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/${listed}")
    list(APPEND module_copies "${module_folder}/${listed}")
  endforeach()
  add_custom_target(Copy${MODULE_NAME}Files ALL DEPENDS ${module_copies})
  install(DIRECTORY "${module_folder}/" DESTINATION "${Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR}"
    COMPONENT RuntimeLibraries USE_SOURCE_PERMISSIONS)
  if(BUILD_TESTING AND MODULE_WITH_GENERIC_TESTS)
    add_test(NAME py_nomainwindow_${MODULE_NAME}ModuleGenericTest COMMAND ${Slicer_LAUNCHER_EXECUTABLE} --version)
  endif()
endmacro()

# Slicer's ctest entry for a Python unit test; here it only checks that the script is there.
macro(slicer_add_python_unittest)
  cmake_parse_arguments(UNITTEST "" "TESTNAME_PREFIX;SCRIPT" "SLICER_ARGS" ${ARGN})
  if(NOT EXISTS "${CMAKE_CURRENT_SOURCE_DIR}/${UNITTEST_SCRIPT}")
    message(FATAL_ERROR "slicer_add_python_unittest: there is no script '${UNITTEST_SCRIPT}'")
  endif()
  get_filename_component(unittest_name "${UNITTEST_SCRIPT}" NAME_WE)
  add_test(NAME py_${UNITTEST_TESTNAME_PREFIX}${unittest_name} COMMAND ${Slicer_LAUNCHER_EXECUTABLE} --version)
endmacro()
