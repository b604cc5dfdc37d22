/* The floor under everyone: answers each A question it is asked over UDP at ADDRESS:PORT with one and the same record.
 * cc -O2 answerer.c; ./a.out 127.0.0.11 53 */
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

int main(int count, char **words)
{
	static const unsigned char record[] = { 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 10, 0, 0, 2 };
	unsigned char message[4096];
	struct sockaddr_in own = { .sin_family = AF_INET }, peer;
	int sock = socket(AF_INET, SOCK_DGRAM, 0);

	if (count != 3 || inet_pton(AF_INET, words[1], &own.sin_addr) != 1)
		return 2;
	own.sin_port = htons(atoi(words[2]));
	if (bind(sock, (struct sockaddr *)&own, sizeof own))
		return 1;
	for (;;) {
		socklen_t length = sizeof peer;
		ssize_t size = recvfrom(sock, message, sizeof message - sizeof record, 0, (struct sockaddr *)&peer, &length);
		ssize_t end = 12;

		if (size < 17)
			continue;
		while (end < size && message[end])
			end += message[end] + 1;
		end += 5;
		if (end > size)
			continue;
		message[2] |= 0x84;
		message[3] = 0x80;
		memset(message + 6, 0, 6);
		message[7] = 1;
		memcpy(message + end, record, sizeof record);
		sendto(sock, message, end + sizeof record, 0, (struct sockaddr *)&peer, length);
	}
}
