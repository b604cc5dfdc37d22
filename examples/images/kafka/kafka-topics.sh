#!/bin/sh
exec java -Xmx96m -Dlog4j.configuration=file:/etc/kafka/log4j.properties -cp '/opt/kafka/libs/*' kafka.admin.TopicCommand "$@"
