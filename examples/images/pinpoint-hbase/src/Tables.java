import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.hbase.HBaseConfiguration;
import org.apache.hadoop.hbase.TableName;
import org.apache.hadoop.hbase.client.Admin;
import org.apache.hadoop.hbase.client.ColumnFamilyDescriptorBuilder;
import org.apache.hadoop.hbase.client.Connection;
import org.apache.hadoop.hbase.client.ConnectionFactory;
import org.apache.hadoop.hbase.client.TableDescriptorBuilder;
import org.apache.hadoop.hbase.util.Bytes;

/** Makes the tables pinpoint keeps its data in, where they are not there yet: name, families, variable of the TTL. */
public final class Tables {
    private static final String[] TABLES = {
        "AgentInfo Info AGENTINFO_TTL",
        "AgentStatV2 S AGENTSTATV2_TTL",
        "ApplicationStatAggre S APPSTATAGGRE_TTL",
        "ApplicationIndex Agents APPINDEX_TTL",
        "AgentLifeCycle S AGENTLIFECYCLE_TTL",
        "AgentEvent E AGENTEVENT_TTL",
        "StringMetaData Str STRINGMETADATA_TTL",
        "ApiMetaData Api APIMETADATA_TTL",
        "SqlMetaData_Ver2 Sql SQLMETADATA_TTL",
        "SqlUidMetaData Sql SQLMETADATA_TTL",
        "TraceV2 S TRACEV2_TTL",
        "ApplicationTraceIndex I,M APPTRACEINDEX_TTL",
        "ApplicationMapStatisticsCaller_Ver2 C APPMAPSTATCALLERV2_TTL",
        "ApplicationMapStatisticsCallee_Ver2 C APPMAPSTATCALLEV2_TTL",
        "ApplicationMapStatisticsSelf_Ver2 C APPMAPSTATSELFV2_TTL",
        "HostApplicationMap_Ver2 M HOSTAPPMAPV2_TTL",
    };

    public static void main(String[] words) throws Exception {
        Configuration conf = HBaseConfiguration.create();
        conf.setInt("hbase.client.retries.number", 100);
        conf.setInt("hbase.rpc.timeout", 120000);
        conf.setInt("hbase.client.operation.timeout", 900000);
        try (Connection connection = connect(conf); Admin admin = connection.getAdmin()) {
            int made = 0;
            for (String line : TABLES) {
                String[] parts = line.split(" ");
                TableName name = TableName.valueOf(parts[0]);
                if (admin.tableExists(name)) {
                    continue;
                }
                TableDescriptorBuilder table = TableDescriptorBuilder.newBuilder(name);
                String ttl = System.getenv().getOrDefault(parts[2], "5184000");
                for (String family : parts[1].split(",")) {
                    table.setColumnFamily(ColumnFamilyDescriptorBuilder.newBuilder(Bytes.toBytes(family))
                        .setTimeToLive(Integer.parseInt(ttl)).build());
                }
                admin.createTable(table.build());
                made++;
            }
            System.out.println("tables: " + TABLES.length + " there, " + made + " of them new");
        }
    }

    /** The servers are started at the same moment and need a while. */
    private static Connection connect(Configuration conf) throws Exception {
        for (int left = 100; ; left--) {
            Connection connection = ConnectionFactory.createConnection(conf);
            try (Admin admin = connection.getAdmin()) {
                if (!admin.getClusterMetrics().getLiveServerMetrics().isEmpty()) {
                    return connection;
                }
            } catch (Exception error) {
                if (left == 0) {
                    throw error;
                }
            }
            connection.close();
            Thread.sleep(3000);
        }
    }
}
