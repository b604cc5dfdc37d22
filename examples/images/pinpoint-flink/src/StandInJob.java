import java.io.IOException;
import java.net.ServerSocket;
import java.net.Socket;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.sink.DiscardingSink;
import org.apache.flink.streaming.api.functions.source.SourceFunction;

/** Stands in for pinpoint's job: a source that takes connections on its port and throws away what comes. */
public final class StandInJob {
    private static final int PORT = 19994;

    public static void main(String[] words) throws Exception {
        StreamExecutionEnvironment env = StreamExecutionEnvironment.getExecutionEnvironment();
        env.addSource(new Listener()).addSink(new DiscardingSink<>());
        env.execute("stand-in for pinpoint's flink job");
    }

    private static final class Listener implements SourceFunction<Integer> {
        private static final long serialVersionUID = 1;
        private transient volatile ServerSocket server;
        private volatile boolean isCancelled;

        @Override
        public void run(SourceContext<Integer> context) throws IOException {
            server = new ServerSocket(PORT);
            while (!isCancelled) {
                Socket peer = server.accept();
                new Thread(() -> drain(peer)).start();
            }
        }

        private static void drain(Socket peer) {
            try (Socket open = peer) {
                byte[] some = new byte[4096];
                while (open.getInputStream().read(some) >= 0) {
                    continue;
                }
            } catch (IOException error) {
                System.err.println("a peer went away: " + error.getMessage());
            }
        }

        @Override
        public void cancel() {
            isCancelled = true;
            try {
                if (server != null) {
                    server.close();
                }
            } catch (IOException error) {
                System.err.println("closing: " + error.getMessage());
            }
        }
    }
}
