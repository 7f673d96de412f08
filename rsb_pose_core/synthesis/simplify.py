"""Fewer triangles: vertices slide along edges onto their neighbours where the surface is flat.

Quadric error metric (Garland and Heckbert, SIGGRAPH 1997) with half-edge collapses, so that what
is left is a subset of the vertices and keeps their texture coordinates and skin weights.
"""

import heapq

import numpy as np


def simplify(vertices: np.ndarray, faces: np.ndarray, wanted: int, tolerance: float) -> np.ndarray:
    """Faces (G, 3) over the same vertices (V, 3), at least `wanted` if it can be reached.

    Boundaries (which seams are, where their vertices are doubled) stay as they are. No vertex
    is dropped that lies further than `tolerance` from the planes of the triangles round it.
    """
    mesh = _Mesh(vertices, faces)
    for vertex in np.unique(faces):
        mesh.offer(int(vertex))
    while mesh.alive > wanted and mesh.heap:
        cost, vertex, target, age = heapq.heappop(mesh.heap)
        if cost > tolerance**2:
            break
        if age == mesh.age[vertex] and target in mesh.ring(vertex) and mesh.sound(vertex, target):
            mesh.collapse(vertex, target)
    return np.array([face for face in mesh.faces if face is not None])


class _Mesh:
    def __init__(self, vertices: np.ndarray, faces: np.ndarray) -> None:
        self.points = vertices.astype(float)
        self.faces: list[tuple[int, int, int] | None] = [
            (int(a), int(b), int(c)) for a, b, c in faces
        ]
        self.alive = len(faces)
        self.around: list[set[int]] = [set() for _ in vertices]
        for number, face in enumerate(faces):
            for vertex in face:
                self.around[vertex].add(number)
        edges = np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), 1)
        pairs, uses = np.unique(edges, axis=0, return_counts=True)
        self.locked = np.zeros(len(vertices), bool)
        self.locked[pairs[uses != 2]] = True
        corners = self.points[faces]
        normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
        plane = np.concatenate([normal, -(normal * corners[:, 0]).sum(1, keepdims=True)], 1)
        self.quadric = np.zeros((len(vertices), 4, 4))
        for k in range(3):
            np.add.at(self.quadric, faces[:, k], plane[:, :, None] * plane[:, None])
        self.planes = np.bincount(faces.ravel(), minlength=len(vertices)).astype(float)
        self.heap: list[tuple[float, int, int, int]] = []
        self.age = [0] * len(vertices)

    def ring(self, vertex: int) -> set[int]:
        """Neighbours."""
        return {v for f in self.around[vertex] for v in self.faces[f] or ()} - {vertex}

    def offer(self, vertex: int) -> None:
        """Queue the cheapest collapse of a vertex; short edges first where all is flat."""
        if self.locked[vertex]:
            return
        self.age[vertex] += 1
        for target in self.ring(vertex):
            quadric = (self.quadric[vertex] + self.quadric[target]) / (
                self.planes[vertex] + self.planes[target]
            )
            point = np.append(self.points[target], 1.0)
            length = self.points[vertex] - self.points[target]
            cost = float(point @ quadric @ point) + 1e-3 * float(length @ length)
            heapq.heappush(self.heap, (cost, vertex, target, self.age[vertex]))

    def sound(self, vertex: int, target: int) -> bool:
        """The surface stays a surface and no triangle turns over."""
        shared = self.around[vertex] & self.around[target]
        if len(shared) != 2 or len(self.ring(vertex) & self.ring(target)) != 2:
            return False
        for number in self.around[vertex] - shared:
            face = self.faces[number] or ()
            before = self.points[list(face)]
            after = self.points[[target if v == vertex else v for v in face]]
            a, b = (np.cross(p[1] - p[0], p[2] - p[0]) for p in (before, after))
            if a @ b < 0.5 * np.linalg.norm(a) * np.linalg.norm(b) or not b.any():
                return False
        return True

    def collapse(self, vertex: int, target: int) -> None:
        """Slide a vertex along an edge onto its target."""
        for number in list(self.around[vertex]):
            face = self.faces[number] or ()
            for v in face:
                self.around[v].discard(number)
            if target in face:
                self.faces[number] = None
                self.alive -= 1
                continue
            a, b, c = (target if v == vertex else v for v in face)
            self.faces[number] = (a, b, c)
            for v in (a, b, c):
                self.around[v].add(number)
        self.quadric[target] += self.quadric[vertex]
        self.planes[target] += self.planes[vertex]
        for v in self.ring(target) | {target}:
            self.offer(v)
