# cmake -D SOURCE=.../klip_engine -D DESTINATION=FOLDER -P CopyEngine.cmake
# Puts a fresh copy of the package into FOLDER: files that are gone from the source are gone from the copy as well.
file(REMOVE_RECURSE "${DESTINATION}/klip_engine")
file(COPY "${SOURCE}" DESTINATION "${DESTINATION}" PATTERN "__pycache__" EXCLUDE PATTERN "*.pyc" EXCLUDE)
