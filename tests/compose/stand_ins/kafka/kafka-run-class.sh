#!/bin/bash
exec java ${KAFKA_HEAP_OPTS--Xmx256m} ${KAFKA_JVM_PERFORMANCE_OPTS--XX:+UseSerialGC} ${KAFKA_OPTS-} \
    -Djava.awt.headless=true -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp '/opt/kafka/libs/*' "$@"
