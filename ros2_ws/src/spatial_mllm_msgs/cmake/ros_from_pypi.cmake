# Lets this package build against the ROS 2 wheels of PyPI; does nothing on an apt ROS 2.
#
# The wheels put share/, lib/ and include/ under one prefix: the virtual environment, or pip's
# build environment. That prefix is found through the wheel `ros-ament-cmake`. Their exported CMake
# targets still name header folders of the machine they were built on; CMake refuses folders
# that do not exist, so these are dropped before generation.

# A sourced ROS 2 wins, except under pip, which always means the wheels.
if(DEFINED ENV{AMENT_PREFIX_PATH} AND NOT SKBUILD)
  return()
endif()

if(DEFINED Python3_EXECUTABLE)
  set(_ros_pypi_python "${Python3_EXECUTABLE}")
elseif(DEFINED Python_EXECUTABLE)
  set(_ros_pypi_python "${Python_EXECUTABLE}")
else()
  find_program(_ros_pypi_python NAMES python3 python)
endif()

execute_process(
  COMMAND "${_ros_pypi_python}" -c
    "import importlib.metadata as m, pathlib as p
f = [f for f in m.distribution('ros-ament-cmake').files if f.name == 'ament_cmakeConfig.cmake'][0]
print(p.Path(f.locate()).resolve().parents[3].as_posix())"
  OUTPUT_VARIABLE _ros_pypi_prefix
  OUTPUT_STRIP_TRAILING_WHITESPACE
  RESULT_VARIABLE _ros_pypi_result
  ERROR_QUIET
)
if(NOT _ros_pypi_result EQUAL 0)
  return()
endif()
message(STATUS "ROS 2 from Python wheels under ${_ros_pypi_prefix}")

set(Python3_EXECUTABLE "${_ros_pypi_python}" CACHE FILEPATH "the interpreter that owns the wheels")
list(PREPEND CMAKE_PREFIX_PATH "${_ros_pypi_prefix}")
set(ENV{AMENT_PREFIX_PATH} "${_ros_pypi_prefix}")

function(_ros_pypi_drop_missing_includes)
  get_property(_targets DIRECTORY "${CMAKE_SOURCE_DIR}" PROPERTY IMPORTED_TARGETS)
  foreach(_target IN LISTS _targets)
    foreach(_property INTERFACE_INCLUDE_DIRECTORIES INTERFACE_SYSTEM_INCLUDE_DIRECTORIES)
      get_target_property(_dirs "${_target}" ${_property})
      if(_dirs)
        set(_kept "")
        foreach(_dir IN LISTS _dirs)
          if(_dir MATCHES "^\\$<" OR EXISTS "${_dir}")
            list(APPEND _kept "${_dir}")
          endif()
        endforeach()
        set_target_properties("${_target}" PROPERTIES ${_property} "${_kept}")
      endif()
    endforeach()
  endforeach()
endfunction()
cmake_language(DEFER DIRECTORY "${CMAKE_SOURCE_DIR}" CALL _ros_pypi_drop_missing_includes)
