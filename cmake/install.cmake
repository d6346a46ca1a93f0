# What `cmake --install` puts where: headers, both libraries, pkg-config and CMake packages, the program with its
# manual pages and completion, the licence.
include(CMakePackageConfigHelpers)
set(favor_package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/favor)

install(DIRECTORY ${CMAKE_SOURCE_DIR}/include/favor TYPE INCLUDE FILES_MATCHING PATTERN "*.h")
install(TARGETS favor_shared favor_static EXPORT favorTargets)
install(EXPORT favorTargets NAMESPACE favor:: DESTINATION ${favor_package_dir})
install(FILES ${CMAKE_SOURCE_DIR}/LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})

# The CMake package: find_package(favor), then link favor::shared or favor::static.
configure_package_config_file(${CMAKE_SOURCE_DIR}/cmake/favorConfig.cmake.in
  ${CMAKE_BINARY_DIR}/favorConfig.cmake INSTALL_DESTINATION ${favor_package_dir})
write_basic_package_version_file(${CMAKE_BINARY_DIR}/favorConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/favorConfig.cmake ${CMAKE_BINARY_DIR}/favorConfigVersion.cmake
  DESTINATION ${favor_package_dir})

# pkg-config; paths relative to the file, so that a moved prefix still works.
file(RELATIVE_PATH favor_prefix_from_pc ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})
set(favor_private_libs ${OpenMP_C_FLAGS} -pthread)
foreach(library IN LISTS FAVOR_GEMM_LIBRARIES)
  if(IS_ABSOLUTE ${library})
    list(APPEND favor_private_libs ${library})
  else()
    list(APPEND favor_private_libs -l${library})
  endif()
endforeach()
list(JOIN favor_private_libs " " favor_private_libs)
string(APPEND favor_private_libs " -lm")
configure_file(${CMAKE_SOURCE_DIR}/cmake/favor.pc.in ${CMAKE_BINARY_DIR}/favor.pc @ONLY)
install(FILES ${CMAKE_BINARY_DIR}/favor.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

# The program writes its own manual pages and completion: one table, no copies.
if(TARGET favor)
  install(TARGETS favor)
  if(NOT CMAKE_CROSSCOMPILING)
    configure_file(${CMAKE_SOURCE_DIR}/cmake/pages.cmake.in ${CMAKE_BINARY_DIR}/pages.cmake @ONLY)
    install(SCRIPT ${CMAKE_BINARY_DIR}/pages.cmake)
  endif()
endif()
