// A stand-in for Grafana: what a Compose stack and its tests see of it, without its pages.
//
// It reads the provisioning files and the GF_* environment, keeps a database file, and answers health, login,
// data sources (with basic authentication), their proxy, and search. Nothing of Grafana's own code is used.
package main

import (
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

const version = "0.0.0-stand-in"

type dataSource struct {
	ID        int    `json:"id" yaml:"-"`
	UID       string `json:"uid" yaml:"uid"`
	OrgID     int    `json:"orgId" yaml:"orgId"`
	Name      string `json:"name" yaml:"name"`
	Type      string `json:"type" yaml:"type"`
	Access    string `json:"access" yaml:"access"`
	URL       string `json:"url" yaml:"url"`
	BasicAuth bool   `json:"basicAuth" yaml:"basicAuth"`
	IsDefault bool   `json:"isDefault" yaml:"isDefault"`
	ReadOnly  bool   `json:"readOnly" yaml:"-"`
}

type dashboard struct {
	ID    int    `json:"id"`
	UID   string `json:"uid"`
	Title string `json:"title"`
	Type  string `json:"type"`
	URI   string `json:"uri"`
}

type server struct {
	user, password string
	sources        []dataSource
	dashboards     []dashboard
	database       string
}

func main() {
	provisioning := setting("GF_PATHS_PROVISIONING", "/etc/grafana/provisioning")
	data := setting("GF_PATHS_DATA", "/var/lib/grafana")
	s := &server{
		user:     setting("GF_SECURITY_ADMIN_USER", "admin"),
		password: setting("GF_SECURITY_ADMIN_PASSWORD", "admin"),
		database: filepath.Join(data, "grafana.db"),
	}
	var err error
	if s.sources, err = readSources(filepath.Join(provisioning, "datasources")); err != nil {
		log.Fatalf("grafana stand-in: %v", err)
	}
	if s.dashboards, err = readDashboards(filepath.Join(provisioning, "dashboards")); err != nil {
		log.Fatalf("grafana stand-in: %v", err)
	}
	if err := writeDatabase(s.database, s.sources); err != nil {
		log.Fatalf("grafana stand-in: GF_PATHS_DATA='%s' is not writable: %v", data, err)
	}
	address := setting("GF_SERVER_HTTP_ADDR", "") + ":" + setting("GF_SERVER_HTTP_PORT", "3000")
	log.Printf("grafana stand-in %s: %d data sources, %d dashboards, listening on %s",
		version, len(s.sources), len(s.dashboards), address)
	log.Fatal(http.ListenAndServe(address, s))
}

func setting(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

func yamlFiles(folder string) ([]string, error) {
	var found []string
	for _, pattern := range []string{"*.yml", "*.yaml"} {
		names, err := filepath.Glob(filepath.Join(folder, pattern))
		if err != nil {
			return nil, err
		}
		found = append(found, names...)
	}
	sort.Strings(found)
	return found, nil
}

func readSources(folder string) ([]dataSource, error) {
	names, err := yamlFiles(folder)
	if err != nil {
		return nil, err
	}
	var all []dataSource
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		var file struct {
			DataSources []dataSource `yaml:"datasources"`
		}
		if err := yaml.Unmarshal(text, &file); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		for _, source := range file.DataSources {
			if source.Name == "" || source.Type == "" {
				return nil, fmt.Errorf("%s: a data source has no name or no type", name)
			}
			source.ID = len(all) + 1
			if source.UID == "" {
				source.UID = fmt.Sprintf("P%08X", source.ID)
			}
			if source.OrgID == 0 {
				source.OrgID = 1
			}
			all = append(all, source)
		}
	}
	return all, nil
}

func readDashboards(folder string) ([]dashboard, error) {
	names, err := yamlFiles(folder)
	if err != nil {
		return nil, err
	}
	var all []dashboard
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		var file struct {
			Providers []struct {
				Options struct {
					Path string `yaml:"path"`
				} `yaml:"options"`
			} `yaml:"providers"`
		}
		if err := yaml.Unmarshal(text, &file); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		for _, provider := range file.Providers {
			paths, err := filepath.Glob(filepath.Join(provider.Options.Path, "*.json"))
			if err != nil {
				return nil, err
			}
			for _, path := range paths {
				one, err := readDashboard(path)
				if err != nil {
					return nil, err
				}
				one.ID = len(all) + 1
				all = append(all, one)
			}
		}
	}
	return all, nil
}

func readDashboard(path string) (dashboard, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return dashboard{}, err
	}
	var file struct {
		UID   string `json:"uid"`
		Title string `json:"title"`
	}
	if err := json.Unmarshal(text, &file); err != nil {
		return dashboard{}, fmt.Errorf("%s: %w", path, err)
	}
	slug := strings.ToLower(strings.Join(strings.Fields(file.Title), "-"))
	return dashboard{UID: file.UID, Title: file.Title, Type: "dash-db", URI: "db/" + slug}, nil
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Path
	switch {
	case path == "/api/health":
		state := "ok"
		if _, err := os.Stat(s.database); err != nil {
			state = "failing"
		}
		answer(w, http.StatusOK, map[string]string{"database": state, "version": version, "commit": "stand-in"})
	case path == "/login" || path == "/":
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprint(w, "<!doctype html><title>Grafana (stand-in)</title><p>A stand-in for Grafana: see /api/health.\n")
	case !strings.HasPrefix(path, "/api/"):
		http.NotFound(w, r)
	case !s.isAllowed(r):
		answer(w, http.StatusUnauthorized, map[string]string{"message": "invalid username or password"})
	case path == "/api/datasources":
		answer(w, http.StatusOK, s.sources)
	case path == "/api/search":
		answer(w, http.StatusOK, s.search(r.URL.Query().Get("query")))
	case path == "/api/org":
		answer(w, http.StatusOK, map[string]any{"id": 1, "name": "Main Org."})
	case strings.HasPrefix(path, "/api/datasources/proxy/"):
		s.proxy(w, r, strings.TrimPrefix(path, "/api/datasources/proxy/"))
	default:
		answer(w, http.StatusNotFound, map[string]string{"message": "not found (this is a stand-in)"})
	}
}

func (s *server) isAllowed(r *http.Request) bool {
	user, password, given := r.BasicAuth()
	return given && user == s.user && subtle.ConstantTimeCompare([]byte(password), []byte(s.password)) == 1
}

func (s *server) search(query string) []dashboard {
	found := []dashboard{}
	for _, one := range s.dashboards {
		if strings.Contains(strings.ToLower(one.Title), strings.ToLower(query)) {
			found = append(found, one)
		}
	}
	return found
}

func (s *server) proxy(w http.ResponseWriter, r *http.Request, rest string) {
	number, path, _ := strings.Cut(rest, "/")
	source, err := s.source(number)
	if err != nil {
		answer(w, http.StatusNotFound, map[string]string{"message": err.Error()})
		return
	}
	target, err := url.Parse(source.URL)
	if err != nil || target.Host == "" {
		answer(w, http.StatusInternalServerError, map[string]string{"message": "the data source has no valid URL"})
		return
	}
	proxy := httputil.ReverseProxy{Director: func(out *http.Request) {
		out.URL.Scheme, out.URL.Host, out.Host = target.Scheme, target.Host, target.Host
		out.URL.Path = strings.TrimSuffix(target.Path, "/") + "/" + path
		out.Header.Del("Authorization")
	}}
	proxy.ServeHTTP(w, r)
}

func (s *server) source(number string) (dataSource, error) {
	id, err := strconv.Atoi(number)
	if err != nil || id < 1 || id > len(s.sources) {
		return dataSource{}, errors.New("data source not found")
	}
	return s.sources[id-1], nil
}

func answer(w http.ResponseWriter, status int, value any) {
	w.Header().Set("Content-Type", "application/json; charset=UTF-8")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(value); err != nil {
		log.Printf("grafana stand-in: answering: %v", err)
	}
}
